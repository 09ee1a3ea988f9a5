"""HTML pages from Jinja2 templates: each one file that needs nothing else, for light and dark screens.

A page's template lies beside the module that fills it and is named by its path below jobs/, such as
`runs/page.html`. It extends `display/page.html` and takes its parts from `display/parts.html`. Everything is
escaped: names of runs, scenes and trials, captions and messages are not to be trusted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from jobs.display.charts import chart_data, chart_library
from jobs.display.figures import curve_svg
from jobs.display.ledger import ledger_table

ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parents[1]),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters |= {"svg": curve_svg, "chart_data": chart_data, "ledger_table": ledger_table}
ENVIRONMENT.globals |= {"chart_library": chart_library}


def render(template: str, title: str, refresh_s: int = 0, **values: Any) -> str:
    """The whole page.

    Args:
        template: its path below jobs/.
        refresh_s: seconds after which a browser loads the page again; 0 never.
        values: what the template shows.
    """
    return ENVIRONMENT.get_template(template).render(title=title, refresh_s=refresh_s, **values)
