"""Private names of Ray itself: its clusters, nodes and printer."""

from __future__ import annotations

from collections.abc import Callable

TOKEN_LOGGER = "ray._private.authentication.authentication_token_setup"
"""A logger that `plinth.observe.terminal` listens to."""

Print = Callable[..., None]
"""Ray's printer of lines that workers wrote: a mapping with "lines" and more, and ignore_prefix."""


def cluster_of_this_node() -> str | None:
    """host:port of the cluster that the address `auto` means; None where there is none."""
    from ray._private.services import canonicalize_bootstrap_address

    found: str | None = canonicalize_bootstrap_address("auto")
    return found


def stay_on_loopback() -> None:
    """Let a cluster that this process starts listen on 127.0.0.1 alone; call before `ray.init`, which is then
    given that as its address. Another process that joins this cluster calls it, too.

    Ray has the switch for macOS and Windows, where a single node is all there is; elsewhere it takes the
    machine's address in its place, and its services listen on all interfaces.
    """
    from ray._private import ray_constants

    ray_constants.ENABLE_RAY_CLUSTER = False


def started_here() -> bool:
    """Whether this process has started the cluster that it is part of, which then ends with it."""
    from ray._private import worker

    node = worker._global_node
    return node is not None and bool(node.is_head())


def is_alone() -> bool:
    """Whether this process has started its cluster, of this one node: no node of it will be taken away."""
    import ray

    return started_here() and len(ray.nodes()) == 1


def draining_nodes() -> dict[str, int]:
    """Nodes that will be taken away, with the deadline (ms since 1970; 0: unknown). Not in the public API."""
    from ray._private.state import state

    found: dict[str, int] = state.get_draining_nodes() or {}
    return found


def ended_services() -> list[str]:
    """Names of Ray's own processes on this machine that have ended by themselves, of a cluster that this
    process has started: gcs_server, raylet and others; nothing elsewhere."""
    from ray._private import worker

    return [name for name, _ in worker._global_node.dead_processes()] if started_here() else []


def replace_printer(made_from: Callable[[Print], Print]) -> None:
    """Print lines of workers and of Ray itself in this driver by what is made from Ray's own printer. Call
    before `ray.init`; once is enough."""
    from ray._private import worker

    if not hasattr(worker.print_to_stdstream, "is_replaced"):
        printer = made_from(worker.print_to_stdstream)
        printer.is_replaced = True  # type: ignore[attr-defined]
        worker.print_to_stdstream = printer
