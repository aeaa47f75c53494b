"""The widget of a cluster in a notebook: Dask's two tabs, with controls that say what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from hpcburst.errors import BurstError

_NARROW = "150px"


def widget(cluster: Any, status: Sequence[Callable[[], str]], scaling: Callable[[], str]) -> Any:
    """A widget that shows a cluster and scales it; None where ipywidgets is not installed.

    It renews itself, in the cluster's event loop, as often as Dask's own
    (`distributed.deploy.cluster-repr-interval`), until the cluster is closed.

    Args:
        cluster: The cluster.
        status: Say in HTML how it is, one below the other.
        scaling: Says in HTML how it scales.
    """
    try:
        from ipywidgets import HTML, Tab, VBox
    except ImportError:
        return None
    looks = [(HTML(), say) for say in (*status, scaling)]

    def renew() -> None:
        for shown, say in looks:
            shown.value = say()

    *first, second = (shown for shown, _ in looks)
    tab = Tab([VBox(first), VBox([second, *_controls(cluster, renew)])])
    tab.set_title(0, "Status")
    tab.set_title(1, "Scaling")
    renew()
    _keep_renewing(cluster, renew)
    return tab


def _controls(cluster: Any, renew: Callable[[], None]) -> list[Any]:
    from ipywidgets import HTML, Accordion, Button, HBox, IntText, Layout

    narrow, answer = Layout(width=_NARROW), HTML()
    count = IntText(0, description="Workers", layout=narrow)
    least = IntText(0, description="Minimum", layout=narrow)
    most = IntText(cluster.site.limits.max_jobs, description="Maximum", layout=narrow)

    def button(text: str, act: Callable[[], object], done: Callable[[], str]) -> Any:
        made = Button(description=text, layout=narrow)

        def pressed(_: object) -> None:
            try:
                act()
            except BurstError as error:
                answer.value = escape(str(error))
            else:
                answer.value = escape(done())
            renew()

        made.on_click(pressed)
        return made

    def limit() -> str:
        return f"at most {cluster.site.limits.max_jobs} jobs"

    scale = button(
        "Scale", lambda: cluster.scale(count.value), lambda: f"{count.value} are held, {limit()}"
    )
    adapt = button(
        "Adapt",
        lambda: cluster.adapt(minimum=least.value, maximum=most.value),
        lambda: f"pilots follow demand: {least.value} are held, {limit()}",
    )
    manual, adaptive = HBox([count, scale]), HBox([least, most, adapt])
    accordion = Accordion([manual, adaptive], layout=Layout(min_width="500px"))
    accordion.selected_index = None
    accordion.set_title(0, "Manual Scaling")
    accordion.set_title(1, "Adaptive Scaling")
    return [accordion, answer]


def _keep_renewing(cluster: Any, renew: Callable[[], None]) -> None:
    import dask.config
    from dask.utils import parse_timedelta
    from tornado.ioloop import PeriodicCallback

    interval_s = parse_timedelta(dask.config.get("distributed.deploy.cluster-repr-interval"), "ms")

    def install() -> None:
        callback = PeriodicCallback(renew, interval_s * 1000)
        cluster.periodic_callbacks["cluster-repr"] = callback  # Dask stops these at the end
        callback.start()

    cluster.loop.add_callback(install)
