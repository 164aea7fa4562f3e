"""Controls that work with and without a kernel: images that follow a parameter, and questions that answer."""

import html
import itertools
import json
import re
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from .page import Shown, identifier, img, prose

MAX_FRAMES, MAX_BYTES = 60, 600_000
SPOKEN = '<p aria-live="polite" style="position:absolute;width:1px;height:1px;overflow:hidden;opacity:0"></p>'
# The frame of a state is its data, or the number of the state that has the same; the first is in the page already.
# In the published page, frames are files (book/image_files.py), fetched when the reader first comes to the control.
SLIDE = """(function(f){var d=JSON.parse(f.querySelector('script').textContent),m=f.querySelector('img'),
c=f.querySelectorAll('input,select'),s=f.querySelector('[aria-live]');d.frames[d.start]=m.src;
function show(){var k=0;c.forEach(function(e,i){var t=d.texts[i][e.value];k=k*d.texts[i].length+ +e.value;
if(e.type=='range'){e.setAttribute('aria-valuetext',t);e.nextSibling.textContent=t}});
var p=d.frames[k];m.src=p>=0?d.frames[p]:p;m.alt=d.alts[k]}
c.forEach(function(e){e.addEventListener('input',function(){show();s.textContent=m.alt})});
['pointerenter','focusin'].forEach(function(n){f.addEventListener(n,function(){d.frames.forEach(function(p){
if(p.length&&p.slice(0,5)!='data:')new Image().src=p})},{once:true})});
f.querySelector('.cv-controls').hidden=false})"""
ASK = """(function(f){var b=f.querySelector('button'),s=f.querySelector('[role=status]'),d=f.querySelector('details');
f.addEventListener('change',function(){s.textContent=s.className=''});
b.addEventListener('click',function(){var i=f.querySelector('input:checked'),l=i&&d.querySelectorAll('li')[i.value];
s.innerHTML=l?l.innerHTML:'Choose an answer first.';s.className=l?l.className:''});b.hidden=false;d.hidden=true})"""
CALL = "(document.currentScript?document.currentScript.parentNode:document.getElementById('%s'))"


def explore(
    fn: Callable,
    *,
    caption: str | None = None,
    alt: str | None = None,
    label: Any = None,
    start: Any = None,
    name: str | None = None,
    lossless: bool | None = None,
    **choices: Any,
) -> Any:
    """Show the image that `fn` draws for one or two parameters, and let the reader choose these.

    In a kernel this is an ipywidgets control that calls `fn`; in a page, a slider (numbers) or a list (all else) over
    frames drawn beforehand. For them `explore` calls `fn` once for every combination: keep it fast.

    Args:
        fn: takes the parameters by name; gives an array as `show.images` takes, a matplotlib figure, or a figure of
            `show` that has one image, always of one size.
        choices: for each parameter a list of values, or {text: value}.
        caption: what to see; by default the first line of fn's docstring.
        label: the control's text, or {parameter: text}.
        alt: what is to be seen, with a field such as {sigma} for each parameter, or a function of the parameters.
        start: the value to begin with, or {parameter: value}. name, lossless: as in `show.figure`.
    Raises: ValueError for more than 60 frames or 600 kB, images of several sizes, choices or alt texts that
        repeat; RuntimeError where `fn` fails, naming the parameters.
    """
    return Control(fn, choices, caption, alt, label, start, name, lossless)


class Control(Shown):
    """What `explore` returns: `html` is for a page, `widget()` for a kernel."""

    def __init__(self, fn, choices, caption, alt, label, start, name, lossless):
        if not 1 <= len(choices) <= 2:
            raise ValueError(
                f"explore: {len(choices)} parameters have choices, expected one or two, as sigma=[1, 2, 4]"
            )
        self.fn, self.call, self.lossless = fn, getattr(fn, "__name__", "fn"), lossless
        label, start = (v if isinstance(v, dict) else dict.fromkeys(list(choices)[:1], v) for v in (label, start))
        if unknown := {*label, *start} - {*choices}:
            raise ValueError(f"explore: label or start names {sorted(unknown)}, expected some of {list(choices)}")
        self.parameters = [parameter(key, given, label.get(key), start.get(key)) for key, given in choices.items()]
        self.states = list(itertools.product(*(range(len(p.values)) for p in self.parameters)))
        self.first = self.states.index(tuple(p.start for p in self.parameters))
        if len(self.states) > MAX_FRAMES:
            sizes = " × ".join(str(len(p.values)) for p in self.parameters)
            raise ValueError(f"explore: {sizes} choices make {len(self.states)} frames, expected at most {MAX_FRAMES}")
        self.caption = caption or (fn.__doc__ or self.call.replace("_", " ")).strip().splitlines()[0]
        self.alts = [self.describe(alt, index) for index in range(len(self.states))]
        if len(set(self.alts)) < len(self.alts) or not all(self.alts):
            raise ValueError("explore: alt repeats itself or is empty, expected every parameter in it, as {sigma}")
        choices_in_words = [f"{p.label}: {', '.join(p.texts)}" for p in self.parameters]
        self.id, self.tag = identifier("fig", name, self.caption, self.alts, choices_in_words), ""
        page = None if "google.colab" in sys.modules else self.page()  # Colab may prefer HTML to a widget
        super().__init__(page, "\n".join([self.caption, *choices_in_words, f"[{self.alts[self.first]}]"]))

    def arguments(self, index):
        return {p.key: p.values[i] for p, i in zip(self.parameters, self.states[index])}

    def describe(self, alt, index):
        if callable(alt):
            return str(alt(**self.arguments(index)))
        chosen = list(zip(self.parameters, self.states[index]))
        if alt is None:
            return f"{self.caption.rstrip('.')}: {', '.join(f'{p.label} {p.texts[i]}' for p, i in chosen)}"
        try:
            return alt.format(**{p.key: p.fields[i] for p, i in chosen})
        except (KeyError, IndexError) as error:
            raise ValueError(f"explore: alt has a field {error}, expected {[p.key for p, _ in chosen]}") from None

    def frame(self, index):
        """Call fn for one choice → the `<img>` of what it draws."""
        try:
            shown = self.fn(**self.arguments(index))
            if isinstance(shown, Shown) and (shown := getattr(shown, "image", None)) is None:
                raise ValueError("gives several images, expected one, as from show.draw_boxes or show.axes")
            return img(shown, self.alts[index], self.lossless, vector=False)
        except Exception as error:
            given = ", ".join(f"{key}={value!r}" for key, value in self.arguments(index).items())
            raise RuntimeError(f"explore: {self.call}({given}): {type(error).__name__}: {error}") from error

    def page(self):
        """Draw every frame → the control in plain HTML, with a few lines of JavaScript and nothing to fetch."""
        tags = [self.frame(index) for index in range(len(self.states))]
        self.tag = tags[self.first]
        sizes = sorted({" × ".join(re.search(r'width="(\d+)" height="(\d+)"', tag).groups()) for tag in tags})
        if len(sizes) > 1:
            raise ValueError(f"explore: the images are {' and '.join(sizes)} pixels, expected one size for all")
        sources = [re.search(r'src="([^"]+)"', tag)[1] for tag in tags]
        frames = [sources.index(source) if source in sources[:i] else source for i, source in enumerate(sources)]
        frames[self.first] = ""  # stands in the page already
        data = {"frames": frames, "alts": self.alts, "texts": [p.texts for p in self.parameters], "start": self.first}
        data = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
        page = (
            f'<figure class="cv-figure cv-explore" id="{self.id}"><div class="cv-controls" hidden>'
            f"{''.join(p.html for p in self.parameters)}</div>{self.tag}<figcaption>{prose(self.caption)}</figcaption>"
            f'{SPOKEN}<script type="application/json">{data}</script><script>{SLIDE}{CALL % self.id}</script></figure>'
        )
        if (size := len(page.encode())) > MAX_BYTES:
            hint = f"at most {MAX_BYTES // 1000}: give fewer choices, smaller images, or lossless=False"
            raise ValueError(f"explore: {len(frames)} frames take {size // 1000} kB, expected {hint}")
        return page

    def widget(self):
        """Make the ipywidgets control: each change calls `fn`, and what it raises is told in words."""
        import ipywidgets as w

        shown, controls = w.HTML(self.tag), []

        def draw(change=None):
            index = self.states.index(tuple(c.value for c in controls))
            try:
                shown.value = self.frame(index)
            except RuntimeError as error:
                shown.value = f'<p role="alert">{html.escape(str(error))}</p>'

        for p in self.parameters:
            kind, more = (w.SelectionSlider, {"continuous_update": False}) if p.ordered else (w.Dropdown, {})
            options, style = [(text, i) for i, text in enumerate(p.texts)], {"description_width": "initial"}
            controls.append(kind(options=options, index=p.start, description=p.label, style=style, **more))
            controls[-1].observe(draw, "value")
        if shown.value == "":
            draw()
        return w.VBox([*controls, shown, w.HTML(prose(self.caption))])

    def _repr_mimebundle_(self, include=None, exclude=None):
        # Written out, as ipywidgets 7 (Colab's) has no `_repr_mimebundle_` to ask.
        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget().model_id}
        page = {} if self.html is None else {"text/html": self.html}
        return {"application/vnd.jupyter.widget-view+json": view, "text/plain": self.plain, **page}


def parameter(key: str, given: Any, label: Any, start: Any) -> Any:
    """Read one parameter's choices → its values, their texts, and its control in HTML."""
    values = list(given.values() if isinstance(given, dict) else given)
    values = [v.item() if getattr(v, "shape", None) == () else v for v in values]
    texts = list(map(str, given)) if isinstance(given, dict) else [worded(v) for v in values]
    if len(values) < 2 or len(set(texts)) < len(texts):
        raise ValueError(f"explore: {key} has the choices {texts}, expected two at least, all distinct")
    if start is not None and worded(start) not in texts:
        raise ValueError(f"explore: start is {start!r}, expected one of {key}'s choices: {', '.join(texts)}")
    words = key.replace("_", " ")
    label = label or (words.capitalize() if len(words) > 1 else words)  # k stays a k
    first = 0 if start is None else texts.index(worded(start))
    numeric = not isinstance(given, dict) and {type(v) for v in values} <= {int, float}
    fields = [v if isinstance(v, int) else float(t) for v, t in zip(values, texts)] if numeric else texts
    ordered = numeric and sorted(values) in (values, values[::-1])
    if ordered:
        now = html.escape(texts[first])
        state = f'max="{len(texts) - 1}" value="{first}" aria-valuetext="{now}" autocomplete="off"'
        ticks = f'style="--steps:{len(texts) - 1}"'
        control = f'<input type="range" min="0" {state} {ticks}><span aria-hidden="true">{now}</span>'
    else:
        mark = {first: " selected"}
        options = (f'<option value="{i}"{mark.get(i, "")}>{html.escape(t)}</option>' for i, t in enumerate(texts))
        control = f'<select autocomplete="off">{"".join(options)}</select>'
    control = f"<label><span>{html.escape(label)}</span>{control}</label>"
    details = {"values": values, "texts": texts, "fields": fields, "ordered": ordered, "start": first}
    return SimpleNamespace(key=key, label=label, html=control, **details)


def worded(value: Any) -> str:
    """Write a choice as the reader sees it."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def quiz(question: str, answers: dict[str, str], correct: str, *, name: str | None = None) -> Any:
    """Ask a question with one right answer, and say to each answer why; works without a kernel.

    Args: answers: {answer: what to say to it}. correct: the right answer. In all texts `this` becomes code, and *this*
        is emphasised.
    """
    if correct not in answers or len(answers) < 2:
        raise ValueError(f"quiz: correct is {correct!r}, expected one of two or more answers: {list(answers)}")
    number = identifier("quiz", name, question, answers)
    options, replies = "", ""
    for i, (answer, reply) in enumerate(answers.items()):
        radio = f'<input type="radio" name="{number}" value="{i}" autocomplete="off">'
        options += f"<label>{radio} <span>{prose(answer)}</span></label>"
        kind, verdict = ("cv-right", "Right.") if answer == correct else ("cv-wrong", "Not quite.")
        replies += f'<li class="{kind}"><strong>{prose(answer)}</strong>: {verdict} {prose(reply)}</li>'
    page = (
        f'<div class="cv-quiz" id="{number}"><fieldset><legend>{prose(question)}</legend>{options}</fieldset>'
        f'<button type="button" hidden>Check my answer</button><p role="status"></p>'
        f"<details><summary>Answers</summary><ul>{replies}</ul></details><script>{ASK}{CALL % number}</script></div>"
    )
    return Shown(page, "\n".join([question, *(f"( ) {answer}" for answer in answers)]))
