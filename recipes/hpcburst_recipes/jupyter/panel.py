"""What the notebook shows: the data, a panel to decide with, the magics `%approve`, `%reject`.

A copy lies in every bundle, because the kernel runs in the env of the task: the standard library of
any Python from 3.8 on, IPython, and ipywidgets where the env has it. All text from the flow is
escaped: names of samples are data, not pages.
"""

from __future__ import annotations

import base64
import html
import json
import mimetypes
import os
import shlex
import threading
import time
from typing import Any

try:  # beside us in the bundle, or where it comes from
    import hpcburst_checkpoint as answering
except ImportError:
    from hpcburst_recipes.checkpoints import answering

SESSION_FILE = "session.json"
CLOSE_FILE = "close.json"

ROWS = 20
AMBER_S, RED_S = 600, 120

HEARD_WITHIN_S = 120.0
HEAR_EVERY_S = 0.5

SAVE = "window.jupyterapp && window.jupyterapp.commands.execute('docmanager:save')"

COUNTDOWN = """<b id="%(id)s"></b> until this session ends; the checkpoint stays
<script>(function () {
  var end = %(end)d, place = document.getElementById("%(id)s");
  function tick() {
    var left = Math.max(0, Math.floor((end - Date.now()) / 1000));
    place.textContent = new Date(left * 1000).toISOString().substr(11, 8);
    place.style.color = left <= %(red)d ? "#c62828" : left <= %(amber)d ? "#b26a00" : "";
    if (left && document.contains(place)) { setTimeout(tick, 1000); }
  }
  setTimeout(tick, 0);
})();</script>"""


def begin(folder: str = "") -> Any:
    """Open the bundle this notebook belongs to, and add the magics."""
    from IPython import get_ipython

    checkpoint = answering.Checkpoint(folder or os.path.dirname(os.path.abspath(__file__)))
    shell = get_ipython()
    if shell is not None:
        _add_magics(shell, checkpoint)
    return checkpoint


def show(checkpoint: Any, name: str) -> None:
    """Display something shown by its name."""
    from IPython.display import HTML, display

    item = checkpoint.question["data"][name]
    if item["shown_as"] == "picture":
        display(HTML(_picture(checkpoint.path(name), name)))
        return
    value = checkpoint.load(name)
    if item["format"] == "json":
        display(HTML("<pre>%s</pre>" % html.escape(json.dumps(value, indent=1)[:20000])))
    elif item["format"] == "parquet" and hasattr(value, "slice"):
        display(HTML(_table(value)))
    else:
        display(value.head(ROWS) if hasattr(value, "head") else value)


def panel(checkpoint: Any) -> Any:
    """The controls to decide with; a hint where the env has no ipywidgets."""
    from IPython.display import HTML, display

    left = _countdown(checkpoint)
    if left:
        display(HTML(left))
    try:
        import ipywidgets
    except ImportError:
        print("No ipywidgets in this env. Decide with  %approve FIELD=VALUE ...  or  %reject WHY")
        return None
    return _Panel(checkpoint, ipywidgets).view


class _Panel:
    def __init__(self, checkpoint: Any, widgets: Any) -> None:
        self.checkpoint, self.widgets = checkpoint, widgets
        schema = checkpoint.question["schema"]
        self.inputs = {
            name: _control(widgets, name, field, schema)
            for name, field in schema.get("properties", {}).items()
        }
        self.why = widgets.Text(description="why", placeholder="a word for the record")
        self.status, self.hidden = widgets.HTML(), widgets.Output()
        self.buttons = [
            self._button(*each) for each in (("approve", "success"), ("reject", "danger"))
        ]
        later = widgets.Button(description="decide later", tooltip="ends this session")
        later.on_click(self._leave)
        title = widgets.HTML("<h3>%s</h3>" % html.escape(checkpoint.question["text"]))
        asked = [*self.inputs.values(), *([] if "note" in self.inputs else [self.why])]
        rows = [title, *asked, widgets.HBox([*self.buttons, later])]
        self.view = widgets.VBox([*rows, self.status, self.hidden])
        self._say_what_stands()

    def _button(self, action: str, style: str) -> Any:
        button = self.widgets.Button(description=action, button_style=style)
        button.on_click(lambda _: self._decide(action))
        return button

    def _decide(self, action: str) -> None:
        values = {name: _value(control) for name, control in self.inputs.items()}
        try:
            answer = self.checkpoint.decide(action, values, note=self.why.value)
        except (answering.InvalidAnswer, answering.AlreadyAnswered, OSError) as error:
            self._say("not recorded: %s" % error)
            return
        self._enable(False)
        self._say("recorded: %s; you can close this tab" % _words(answer))
        with self.hidden:
            _save()
        threading.Thread(target=self._hear, args=(answer["round"],), daemon=True).start()

    def _hear(self, number: int) -> None:
        """Tell what the flow made of the answer: it may refuse what only its model can judge."""
        deadline = time.monotonic() + HEARD_WITHIN_S
        while time.monotonic() < deadline:
            if self.checkpoint.round() > number:
                self._enable(True)
                self._say("the flow asks again: %s" % self.checkpoint.refusals()[-1])
                return
            if self.checkpoint.outcome() is not None:
                went_on = time.strftime("%H:%M")
                self._say("recorded; the pipeline went on at %s; you can close this tab" % went_on)
                return
            time.sleep(HEAR_EVERY_S)

    def _leave(self, _: Any) -> None:
        self.checkpoint.keep(CLOSE_FILE, {"at": time.time()})
        self._say("this session ends; the checkpoint waits")

    def _enable(self, on: bool) -> None:
        for button in self.buttons:
            button.disabled = not on

    def _say(self, text: str) -> None:
        self.status.value = "<b>%s</b>" % html.escape(text)

    def _say_what_stands(self) -> None:
        standing = self.checkpoint.outcome() or self.checkpoint.answer()
        if standing is not None:
            self._enable(False)
            self._say(str(answering.AlreadyAnswered(standing)))


def _control(widgets: Any, name: str, field: dict[str, Any], schema: dict[str, Any]) -> Any:
    """The control for a field, by its schema; the value is `field`'s default at first."""
    look = {"description": name, "style": {"description_width": "initial"}}
    default, kind = field.get("default"), field.get("type")
    if "enum" in field:
        return widgets.RadioButtons(options=_options(field, field["enum"]), value=default, **look)
    if kind == "array" and "enum" in field.get("items", {}):
        options = _options(field, field["items"]["enum"])
        return widgets.SelectMultiple(options=options, value=tuple(default or ()), **look)
    if kind in ("number", "integer"):
        return _number(widgets, field, look)
    if kind == "boolean":
        return widgets.Checkbox(value=bool(default), **look)
    if kind == "string":
        return widgets.Text(value=default or "", **look)
    text = widgets.Text(value="" if default is None else json.dumps(default), **look)
    text.hpcburst_read = lambda words: answering.from_words(words, field, schema)
    return text


def _number(widgets: Any, field: dict[str, Any], look: dict[str, Any]) -> Any:
    low = field.get("minimum", field.get("exclusiveMinimum"))
    high = field.get("maximum", field.get("exclusiveMaximum"))
    whole = field.get("type") == "integer"
    if low is None or high is None:
        kind = widgets.IntText if whole else widgets.FloatText
        return kind(value=field.get("default", 0), **look)
    value = field.get("default", low)
    if whole:
        return widgets.IntSlider(value=value, min=low, max=high, **look)
    return widgets.FloatSlider(value=value, min=low, max=high, step=(high - low) / 100, **look)


def _options(field: dict[str, Any], values: list[Any]) -> list[tuple[str, Any]]:
    words = field.get("words") or ["" for _ in values]
    return [
        (str(value) + (": " + words[place] if words[place] else ""), value)
        for place, value in enumerate(values)
    ]


def _value(control: Any) -> Any:
    read = getattr(control, "hpcburst_read", None)
    if read is not None:
        return read(control.value)
    return list(control.value) if isinstance(control.value, tuple) else control.value


def _add_magics(shell: Any, checkpoint: Any) -> None:
    def approve(line: str) -> None:
        """Approve: `%approve FIELD=VALUE ...`."""
        _answer("approve", answering.read_pairs(shlex.split(line), checkpoint.question["schema"]))

    def reject(line: str) -> None:
        """Reject: `%reject WHY`."""
        _answer("reject", {}, line.strip())

    def _answer(action: str, values: dict[str, Any], why: str = "") -> None:
        print("recorded: %s" % _words(checkpoint.decide(action, values, note=why)))
        _save()

    shell.register_magic_function(_told(approve), magic_name="approve")
    shell.register_magic_function(_told(reject), magic_name="reject")


def _told(magic: Any) -> Any:
    """A mistake in an answer is one line, not a traceback."""

    def tell(line: str) -> None:
        try:
            magic(line)
        except (ValueError, answering.AlreadyAnswered) as error:
            print("not recorded: %s" % error)

    return tell


def _save() -> None:
    from IPython.display import Javascript, display

    display(Javascript(SAVE))


def _words(answer: dict[str, Any]) -> str:
    values = ", ".join(
        "%s=%s" % pair for pair in answer["values"].items() if pair[1] not in ("", [])
    )
    return " ".join(part for part in (answer["action"], values) if part)


def _countdown(checkpoint: Any) -> str:
    """A clock that the page counts down: one in the kernel would keep it from ever being idle."""
    try:
        with open(os.path.join(checkpoint.folder, SESSION_FILE), encoding="utf-8") as file:
            ends = json.load(file).get("ends")
    except (OSError, ValueError):
        return ""
    if not ends:
        return ""
    place = "left-" + checkpoint.id
    return COUNTDOWN % {"id": place, "end": ends * 1000, "red": RED_S, "amber": AMBER_S}


def _picture(path: str, name: str) -> str:
    kind = mimetypes.guess_type(path)[0] or "image/png"
    with open(path, "rb") as file:
        data = base64.b64encode(file.read()).decode()
    return '<img alt="%s" style="max-width: 100%%" src="data:%s;base64,%s">' % (
        html.escape(name, quote=True),
        kind,
        data,
    )


def _table(table: Any) -> str:
    """The first rows of an Arrow table."""
    rows = table.slice(0, ROWS).to_pylist()
    head = "".join("<th>%s</th>" % html.escape(str(name)) for name in table.column_names)
    body = "".join(
        "<tr>%s</tr>" % "".join("<td>%s</td>" % html.escape(str(cell)) for cell in row.values())
        for row in rows
    )
    more = "" if table.num_rows <= ROWS else "<p>%d rows in all</p>" % table.num_rows
    return "<table><thead><tr>%s</tr></thead><tbody>%s</tbody></table>%s" % (head, body, more)
