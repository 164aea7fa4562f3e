"""Every lesson as a reader meets it on Colab: from an empty folder, by its own set-up cell, its controls moved."""

import re

import pytest

from cvlab import run

pytestmark = pytest.mark.weekly
VIEW = "application/vnd.jupyter.widget-view+json"
CHOICES = ("SelectionSliderModel", "DropdownModel")


class Page:
    """What a browser knows of a notebook: the outputs of its cells, and the state of every widget."""

    def __init__(self, kernel):
        self.kernel, self.outputs, self.widgets = kernel, [], {}

    def execute(self, source):
        reply = self.kernel.execute_interactive(source, allow_stdin=False, timeout=900, output_hook=self.receive)
        assert reply["content"]["status"] == "ok", "\n".join(reply["content"]["traceback"])

    def receive(self, message):
        kind, content = message["msg_type"], message["content"]
        if kind == "comm_open":
            self.widgets[content["comm_id"]] = dict(content["data"]["state"])
        elif kind == "comm_msg" and content["data"].get("method") == "update":
            self.widgets[content["comm_id"]].update(content["data"]["state"])
        elif kind in ("execute_result", "display_data", "stream", "error"):
            self.outputs.append(content)

    def controls(self):
        """Give the controls in view, each with the model of what it moves: [(control, picture)]."""
        found = []
        for output in self.outputs:
            box = self.widgets.get(output.get("data", {}).get(VIEW, {}).get("model_id"), {})
            children = [child.removeprefix("IPY_MODEL_") for child in box.get("children", ())]
            choices = [child for child in children if self.widgets[child]["_model_name"] in CHOICES]
            found += [(choice, children[len(choices)]) for choice in choices]
        return found

    def move(self, control, index):
        """Choose another value, as a hand does, and wait until the kernel has answered."""
        content = {"comm_id": control, "data": {"method": "update", "state": {"index": index}, "buffer_paths": []}}
        message = self.kernel.session.msg("comm_msg", content)
        self.kernel.shell_channel.send(message)
        while True:
            answer = self.kernel.get_iopub_msg(timeout=120)
            if answer["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                self.receive(answer)
                if answer["msg_type"] == "status" and answer["content"]["execution_state"] == "idle":
                    return


@pytest.mark.parametrize("name", run.chapters())
def test_a_lesson_runs_on_colab_from_an_empty_folder_and_its_controls_move(name, home, kernel):
    page, asked_for = Page(kernel), 0
    for cell in run.read_notebook(name).cells:
        if cell.cell_type == "code":
            page.execute(cell.source.replace('BOOK = ""', f"BOOK = {home[0]!r}"))
            asked_for += len(re.findall(r"^explore\(", cell.source, re.M))
    page.execute("import cvlab.files, google.colab; print(cvlab.files.BOOK)")
    text = "\n".join(str(output) for output in page.outputs)
    assert "_book" in page.outputs[-1]["text"], "cvlab came from the clone"
    assert "Traceback" not in text and "✗" not in text
    controls = page.controls()
    assert len({picture for _, picture in controls}) >= asked_for
    for control, picture in controls:
        before, now = page.widgets[picture]["value"], page.widgets[control]["index"]
        last = len(page.widgets[control]["_options_labels"]) - 1
        page.move(control, last if now != last else 0)
        after = page.widgets[picture]["value"]
        assert after != before and "<img" in after, after[:300]
