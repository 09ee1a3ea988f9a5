"use strict";
// Makes charts of the page's curves: values under the pointer, zoom, a log axis, smoothing. All charts of a
// group (.curves) have one x, so pointer and zoom are shared; its choices outlive the page's reloads.
{
  const MAX_SMOOTHING = 0.99, FAINT = "40", HEIGHT = 0.62, NARROWEST = 0.01, AROUND = 1.15;
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const element = (tag, properties, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const shortest = value => {
    if (value == null) return "–";
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2);
    return String(Number(value.toPrecision(5)));
  };
  const tick = value => {
    if (value == null) return "";
    const size = Math.abs(value);
    if (size >= 1e4) return new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 }).format(value);
    return size !== 0 && size < 1e-3 ? value.toExponential(0) : String(Number(value.toPrecision(4)));
  };

  // What a group was set to, kept while its window is open: pages of running runs are loaded again.
  const kept = key => {
    try { return JSON.parse(sessionStorage.getItem(key)) ?? {}; } catch { return {}; }
  };
  const keep = (key, value) => {
    try { sessionStorage.setItem(key, JSON.stringify(value)); } catch { /* a browser that keeps nothing */ }
  };

  // Exponential moving average without the pull to zero at its start; gaps stay gaps.
  const smoothed = (values, weight) => {
    let sum = 0, mass = 0;
    return values.map(value => {
      if (value == null) return value;
      sum = weight * sum + (1 - weight) * value;
      mass = weight * mass + (1 - weight);
      return sum / mass;
    });
  };

  // The nearest point of a series: series of one chart need not have the same x.
  const nearest = (plot, series, index) => {
    const [x, values] = [plot.data[0], plot.data[series]];
    if (values[index] != null) return index;
    let left = index, right = index;
    while (left >= 0 && values[left] == null) left--;
    while (right < values.length && values[right] == null) right++;
    if (left < 0) return right < values.length ? right : index;
    if (right >= values.length) return left;
    return x[index] - x[left] <= x[right] - x[index] ? left : right;
  };
  // Of a log axis: uPlot's own goes to whole decades.
  const around = (plot, low, high) => low == null ? [null, null] : [low / AROUND, high * AROUND];
  const lastOf = values => values.findLast(value => value != null);

  class Chart {
    constructor(group, figure) {
      this.group = group;
      this.figure = figure;
      this.curve = JSON.parse(figure.querySelector("script").textContent);
      this.off = new Set(); // names that were clicked away
      this.place = element("div", { className: "chart" });
      this.title = element("figcaption", { className: "chart-title", textContent: this.curve.title });
      this.larger = element("button", { type: "button", className: "larger", textContent: "⤢", title: "Larger or smaller" });
      this.larger.setAttribute("aria-pressed", "false");
      this.larger.addEventListener("click", () => {
        this.larger.setAttribute("aria-pressed", String(figure.classList.toggle("large")));
      });
      const head = element("div", { className: "chart-head" }, this.title, this.larger);
      figure.append(head, this.place, ...figure.querySelectorAll(".note")); // what it means stands below
      figure.classList.add("drawn");
      // In the next frame: a chart that changed its size within this one would be told of it again.
      new ResizeObserver(() => requestAnimationFrame(() => this.fit())).observe(this.place);
    }

    get size() {
      const width = this.place.clientWidth;
      const height = this.figure.classList.contains("large") ? Math.min(width * HEIGHT, 460) : width * HEIGHT;
      return { width, height: Math.round(height) };
    }

    fit() {
      const { width, height } = this.size;
      if (!width) return; // in a closed part of the page
      if (!this.plot) this.draw();
      else if (this.plot.width !== width || this.plot.height !== height) this.plot.setSize({ width, height });
    }

    draw() {
      if (!this.place.clientWidth) return;
      this.plot?.destroy();
      const { log, smoothing } = this.group.choice;
      const { tables, series, order } = this.curve;
      const joined = uPlot.join(tables);
      const columns = new Map(series.map((each, i) => [each.name, { ...each, values: joined[i + 1] }]));
      const chosen = order.map(name => columns.get(name)).filter(each => isShown(each.name));
      const isLog = log && chosen.some(each => each.values.some(value => value > 0));
      const positive = values => isLog ? values.map(value => value > 0 ? value : null) : values;
      const lines = chosen.flatMap(each => {
        const line = { label: each.name, stroke: each.colour, width: 1.5, spanGaps: true, points: { size: 4 }, show: !this.off.has(each.name) };
        line.value = (plot, value, at, index) => shortest(index == null ? lastOf(plot.data[at]) : value);
        if (!smoothing) return [[line, positive(each.values)]];
        const raw = { ...line, class: "raw", stroke: each.colour + FAINT, width: 1, points: { show: false } };
        const smooth = smoothed(each.values, smoothing);
        return [[raw, positive(each.values)], [{ ...line, points: { show: false } }, positive(smooth)]];
      });
      const axis = {
        stroke: () => colour("--muted"), font: "11px system-ui, sans-serif", ticks: { show: false },
        grid: { stroke: () => colour("--line"), width: 1 },
      };
      const options = {
        ...this.size,
        padding: [14, 10, 0, 0],
        scales: { x: { time: false }, y: isLog ? { distr: 3, range: around } : {} },
        series: [{ label: this.curve.x, value: (plot, value) => shortest(value ?? plot.data[0].at(-1)) }, ...lines.map(([line]) => line)],
        axes: [
          { ...axis, size: 26, gap: 2, values: (_, found) => found.map(tick) },
          { ...axis, gap: 4, values: (_, found) => found.map(tick),
            size: (_, found) => 14 + 6.4 * Math.max(2, ...(found ?? []).map(text => (text ?? "").length)) },
        ],
        cursor: {
          y: false, drag: { x: true, y: false, dist: 4 }, dataIdx: nearest, points: { size: 7 },
          sync: { key: this.group.key, scales: ["x", null], filters: { pub: kind => kind === "mousemove" || kind === "mouseleave" } },
        },
        legend: { markers: { width: 0, fill: (plot, i) => plot.series[i].stroke(plot, i) } },
        hooks: {
          draw: [plot => this.mark(plot)],
          setScale: [(plot, scale) => scale === "x" && this.group.zoomed(plot)],
          setSeries: [(plot, at, { show }) => show != null && this.show(plot, plot.series[at].label, show)],
        },
      };
      this.place.replaceChildren();
      this.plot = new uPlot(options, [joined[0], ...lines.map(([, values]) => values)], this.place);
      this.place.dataset.axis = isLog ? "log" : "linear";
      this.fingers();
      if (this.group.choice.zoom) this.plot.setScale("x", this.group.choice.zoom);
    }

    // All lines of a name, the faint one too, and again when the chart is drawn again.
    show(plot, name, show) {
      this.off[show ? "delete" : "add"](name);
      plot.series.forEach(({ label }, i) => i > 0 && label === name && plot.setSeries(i, { show }, false));
    }

    // Dotted where something happened, with a word at the top; words that would meet stand lower.
    mark(plot) {
      const { ctx, bbox } = plot, ratio = devicePixelRatio;
      ctx.save();
      ctx.beginPath();
      ctx.rect(bbox.left, 0, bbox.width, bbox.top + bbox.height);
      ctx.clip();
      ctx.font = `${10 * ratio}px system-ui, sans-serif`;
      ctx.textAlign = "left";
      ctx.textBaseline = "alphabetic";
      ctx.lineWidth = 1.2 * ratio;
      ctx.setLineDash([2 * ratio, 3 * ratio]);
      const ends = [];
      for (const { x, text, colour: own } of this.curve.marks) {
        const at = plot.valToPos(x, "x", true);
        if (at < bbox.left || at > bbox.left + bbox.width) continue;
        ctx.strokeStyle = ctx.fillStyle = own ?? colour("--muted");
        ctx.beginPath();
        ctx.moveTo(at, bbox.top);
        ctx.lineTo(at, bbox.top + bbox.height);
        ctx.stroke();
        if (!text) continue;
        const wide = ctx.measureText(text).width, left = Math.min(at + 3 * ratio, bbox.left + bbox.width - wide);
        let row = 0;
        while (ends[row] > left) row++;
        ends[row] = left + wide + 4 * ratio;
        ctx.fillText(text, left, bbox.top + (8 + 11 * row) * ratio);
      }
      ctx.restore();
    }

    // One finger reads values, two zoom; up and down still scroll the page.
    fingers() {
      const { plot } = this, over = plot.over, held = new Map();
      const left = event => event.clientX - over.getBoundingClientRect().left;
      const places = () => [...held.values()].sort((a, b) => a - b);
      over.style.touchAction = "pan-y";
      over.addEventListener("pointerdown", event => {
        if (event.pointerType === "touch") held.set(event.pointerId, left(event));
      });
      over.addEventListener("pointermove", event => {
        if (!held.has(event.pointerId)) return;
        const before = places();
        const [low, high] = before.map(at => plot.posToVal(at, "x"));
        held.set(event.pointerId, left(event));
        if (held.size === 1) {
          plot.setCursor({ left: left(event), top: 1 });
        } else if (held.size === 2) {
          const now = places();
          const { min, max } = plot.scales.x, [first, last] = [plot.data[0][0], plot.data[0].at(-1)];
          const factor = (before[1] - before[0]) / Math.max(now[1] - now[0], 1);
          const span = Math.max((max - min) * factor, (last - first) * NARROWEST);
          const middle = (low + high) / 2, share = (middle - min) / (max - min);
          const start = Math.max(first, middle - share * span);
          plot.setScale("x", { min: start, max: Math.min(last, start + span) });
        }
      });
      for (const end of ["pointerup", "pointercancel", "pointerleave"]) {
        over.addEventListener(end, event => held.delete(event.pointerId));
      }
    }
  }

  class Group {
    constructor(node, number) {
      this.key = `charts ${location.pathname} ${number}`;
      this.choice = { log: false, smoothing: 0, zoom: null, ...kept(this.key) };
      node.before(this.tools());
      this.charts = [...node.querySelectorAll("figure")].map(figure => new Chart(this, figure));
    }

    tools() {
      const log = element("input", { type: "checkbox", checked: this.choice.log });
      log.addEventListener("change", () => this.choose({ log: log.checked }));
      const weight = element("input", { type: "range", min: 0, max: MAX_SMOOTHING, step: 0.01, value: this.choice.smoothing });
      const shown = element("output", { textContent: this.choice.smoothing.toFixed(2) });
      weight.addEventListener("input", () => {
        shown.textContent = Number(weight.value).toFixed(2);
        this.choose({ smoothing: Number(weight.value) });
      });
      this.whole = element("button", { type: "button", textContent: "Whole range", disabled: !this.choice.zoom });
      this.whole.addEventListener("click", () => this.choose({ zoom: null }));
      const hint = matchMedia("(hover: none)").matches
        ? "One finger reads values, two zoom; tap a name to hide its curve."
        : "Drag to zoom, double click for the whole range; click a name to hide its curve.";
      return element("div", { className: "chart-tools" },
        element("label", {}, log, " Log axis"), element("label", {}, "Smoothing ", weight, " ", shown),
        this.whole, element("small", { textContent: hint }));
    }

    choose(change) {
      Object.assign(this.choice, change);
      this.whole.disabled = !this.choice.zoom;
      keep(this.key, this.choice);
      for (const chart of this.charts) chart.draw();
    }

    // A chart's x has another range than before: all charts of the group follow.
    zoomed(plot) {
      const { min, max } = plot.scales.x, x = plot.data[0];
      if (min == null || !x.length) return;
      const now = this.choice.zoom;
      if (now && now.min === min && now.max === max) return; // a chart that follows, whatever its own x is
      const zoom = min <= x[0] && max >= x.at(-1) ? null : { min, max };
      if (JSON.stringify(zoom) === JSON.stringify(this.choice.zoom)) return;
      this.choice.zoom = zoom;
      this.whole.disabled = !zoom;
      keep(this.key, this.choice);
      for (const chart of this.charts ?? []) {
        const own = chart.plot;
        if (!own || own === plot) continue;
        own.setScale("x", zoom ?? { min: own.data[0][0], max: own.data[0].at(-1) });
      }
    }
  }

  // Tick boxes of the page may choose series by name, such as runs; a name without a box is always shown.
  const boxes = [...document.querySelectorAll("input[data-series]")];
  const isShown = name => boxes.every(box => box.dataset.series !== name || box.checked);
  const groups = [...document.querySelectorAll(".curves")].map((node, i) => new Group(node, i));
  const redraw = () => groups.forEach(group => group.charts.forEach(chart => chart.draw()));
  boxes.forEach(box => box.addEventListener("change", redraw));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}
