"""The house itself: files that must agree with each other, and what its commands say when something is missing."""

import ast
import io
import json
import re
import shutil
import statistics
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from cvlab import run, stamps

pytestmark = pytest.mark.house

ROOT = run.book_root()
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def committed():
    """List the files that are, or are about to be, under version control."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("not a git checkout")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def chapters():
    return [pytest.param(run.read_notebook(name), id=name) for name in run.chapters()]


every_chapter = pytest.mark.parametrize("notebook", chapters())


def project():
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


# Lessons that take a reader's own data


def takes_own_data():
    return [p for p in chapters() if "path" in run.default_parameters(p.values[0])]


@pytest.mark.parametrize("notebook", takes_own_data())
def test_a_lesson_for_own_data_marks_the_claims_about_the_books_and_counts_them_at_its_end(notebook):
    sources = [cell.source for cell in stamps.code_cells(notebook)]
    assert sum("claim = Claims(" in source for source in sources) == 1
    assert any(re.search(r"^ *claim\(", source, re.M) for source in sources)
    assert sources[-1].startswith("claim.summary()\n")


@pytest.mark.parametrize("notebook", takes_own_data())
def test_a_lesson_for_own_data_labels_the_first_result_that_the_book_measured(notebook):
    sources = [cell.source for cell in stamps.code_cells(notebook)]
    for loaded in (i for i, source in enumerate(sources) if "data.results(" in source):
        shows = re.compile(r"^(show\.\w+|explore)\(", re.M)
        shown = [source for source in sources[loaded:] if shows.search(source)]
        assert not shown or "claim.label()" in shown[0]  # what is only claimed is skipped with other data


# What is installed


def locked():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines]


def test_the_lock_pins_every_package_exactly_and_names_no_index():
    for requirement in locked():
        assert re.fullmatch(r"==[\w.!+]+", str(requirement.specifier)), requirement
        assert requirement.url is None


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(("system", "machine"), [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")])
def test_the_lock_lies_within_the_ranges(python, system, machine):
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": system,
        "platform_machine": machine,
        "extra": "",
    }

    def here(requirement):
        return requirement.marker is None or requirement.marker.evaluate(environment)

    pins = {r.name.lower(): Version(next(iter(r.specifier)).version) for r in locked() if here(r)}
    texts = [*project()["dependencies"]]
    for extra in ("cpu", "run", "sweep", "lab", "test"):
        texts += project()["optional-dependencies"][extra]
    for file in ("requirements.txt", "render/requirements.txt"):
        lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
        texts += [line for line in lines if line and not line.startswith(("#", "-"))]
    for requirement in filter(here, map(Requirement, texts)):
        assert requirement.specifier.contains(pins[requirement.name.lower()]), requirement


def test_the_page_packages_are_locked_with_a_checksum_and_without_a_registry():
    packages = json.loads((ROOT / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    asked = json.loads((ROOT / "package.json").read_text(encoding="utf-8"))
    for name in (*asked["dependencies"], *asked["devDependencies"]):
        assert packages[f"node_modules/{name}"]["integrity"].startswith("sha512-")
    assert not [name for name, package in packages.items() if "resolved" in package]


def test_importing_cvlab_is_quick_and_brings_no_backend():
    code = (
        "import sys, time; began = time.perf_counter(); import cvlab; seconds = time.perf_counter() - began;"
        "heavy = {'keras', 'tensorflow', 'jax', 'torch', 'cv2', 'matplotlib', 'numpy'};"
        "print(seconds, sorted(heavy & {*sys.modules}))"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    printed = [run.stdout.split(maxsplit=1) for run in runs]
    assert {modules.strip() for _, modules in printed} == {"[]"}
    assert min(float(seconds) for seconds, _ in printed) < 0.1


def test_every_module_is_reached_through_the_package_and_a_wrong_name_is_told():
    import cvlab

    modules = {path.stem for path in (ROOT / "cvlab").glob("*.py") if not path.stem.startswith("__")}
    assert set(cvlab.__all__) == modules
    assert all(getattr(cvlab, name).__name__ == f"cvlab.{name}" for name in modules)
    with pytest.raises(AttributeError, match="no 'explian'; its modules are .*explore"):
        _ = cvlab.explian


def test_only_the_backend_module_imports_a_backend():
    for path in (ROOT / "cvlab").rglob("*.py"):
        found = re.findall(r"^\s*(?:import|from)\s+(tensorflow|jax|torch)\b", path.read_text(encoding="utf-8"), re.M)
        assert not found or path == ROOT / "cvlab" / "engine" / "backend.py", path.name


def test_no_committed_file_names_a_folder_of_this_machine():
    private = {str(ROOT), str(Path.home())} - {"/"}
    for path in committed():
        text = path.read_bytes().decode("utf-8", "replace")
        assert not [folder for folder in private if re.search(rf"{re.escape(folder)}\b", text)], path


# The chapters


def test_every_chapter_is_in_the_table_of_contents_and_in_both_profiles():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = {chapter["file"] for part in toc["parts"] for chapter in part["chapters"]}
    names = set(run.chapters())
    assert {f"chapters/{name}" for name in names} <= files
    assert all(
        (ROOT / f"{file}{suffix}").exists()
        for file in files
        for suffix in (".ipynb" if file.removeprefix("chapters/") in names else ".md",)
    )
    for profile in ("quick", "full"):
        text = (ROOT / "chapters" / "profiles" / f"{profile}.yml").read_text(encoding="utf-8")
        assert set(yaml.safe_load(text)) == names


@pytest.mark.parametrize("name", run.chapters())
def test_the_committed_parameters_are_those_of_the_quick_profile(name):
    assert run.settings(name, "quick") == {}
    assert run.settings(name, "full") != {}


@every_chapter
def test_every_cvlab_name_that_a_chapter_uses_exists(notebook):
    import importlib

    modules = {}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        tree = ast.parse(re.sub(r"^\s*[%!].*$", "", cell.source, flags=re.M))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cvlab":
                source = importlib.import_module(node.module)
                for alias in node.names:
                    if node.module == "cvlab":
                        modules[alias.asname or alias.name] = importlib.import_module(f"cvlab.{alias.name}")
                    else:
                        assert hasattr(source, alias.name), f"{node.module}.{alias.name}"
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                assert hasattr(modules[node.value.id], node.attr), f"{node.value.id}.{node.attr}"
    assert modules


@every_chapter
def test_a_chapter_is_committed_with_clean_outputs(notebook):
    assert not {"widgets", "papermill"} & set(notebook.metadata)
    assert "cvlab" not in notebook.metadata or stamps.read(notebook), "outputs or stamp were edited by hand"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code if cell.source.strip()] == list(range(1, len(code) + 1))
    for cell in code:
        assert not {"papermill", "execution"} & set(cell.metadata)
        assert "injected-parameters" not in cell.metadata.get("tags", [])
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr"
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {})


@every_chapter
def test_code_cells_are_short(notebook):
    lengths = [len(cell.source.splitlines()) for cell in notebook.cells if cell.cell_type == "code"]
    assert max(lengths) <= 25
    assert statistics.median(lengths) <= 8


# The commands


@pytest.fixture
def bare(tmp_path):
    """A folder with a space in its name that holds book/environment.sh, and a PATH without Python."""
    clone = tmp_path / "a clone"
    (clone / "book").mkdir(parents=True)
    shutil.copy(ROOT / "book" / "environment.sh", clone / "book")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "dirname", "date", "tail", "grep", "touch", "mkdir", "cat", "chmod", "sleep", "cksum"):
        (programs / name).symlink_to(shutil.which(name))
    return clone, programs


def stub(path, script):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


# Pythons as far as the script asks them: is the version in range, is there a venv module, make a .venv.
TOO_NEW = 'case "$*" in *-V*) echo Python 3.14.0;; *version_info*) exit 1;; esac'
WITHOUT_VENV = 'case "$*" in *ensurepip*) exit 1;; esac'


def working(pip="exit 1", uv="exit 0"):
    return f"""case "$*" in *--clear*)
mkdir -p .venv/bin; printf '#!/bin/sh\\ncase "$*" in *"-m pip"*) {pip};; *"-m uv"*) {uv};; esac\\n' >.venv/bin/python
chmod +x .venv/bin/python;;
esac"""


def install(bare, python=None):
    clone, programs = bare
    command = [clone / "book" / "environment.sh", ".venv/stamp", "--requirement", "requirements.txt"]
    environment = {"PATH": str(programs), **({"PYTHON": python} if python else {})}
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False, timeout=60)
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("install")]
    return done.returncode, complaints, (clone / ".venv" / "stamp").exists()


def test_without_python_one_line_says_what_to_install(bare):
    code, complaints, stamped = install(bare)
    assert (code, len(complaints), stamped) == (1, 1, False)
    assert "Python 3.10 to 3.13 is needed" in complaints[0]


def test_with_too_new_a_python_one_line_says_which_it_is(bare):
    stub(bare[1] / "python3", TOO_NEW)
    code, complaints, _ = install(bare)
    assert (code, len(complaints)) == (1, 1)
    assert "Python 3.14.0" in complaints[0]


def test_without_the_venv_module_one_line_says_so(bare):
    stub(bare[1] / "python3", WITHOUT_VENV)
    code, complaints, _ = install(bare)
    assert (code, len(complaints)) == (1, 1)
    assert "python3 has no venv module" in complaints[0]
    assert "python3-venv" in complaints[0]


def test_an_older_python_beside_too_new_a_one_is_found(bare):
    stub(bare[1] / "python3", TOO_NEW)
    stub(bare[1] / "python3.13", WITHOUT_VENV)
    stub(bare[1] / "python3.12", working())
    assert install(bare) == (0, [], True)


def test_python_can_be_named(bare):
    stub(bare[0].parent / "elsewhere" / "python", working())
    assert install(bare, python=str(bare[0].parent / "elsewhere" / "python")) == (0, [], True)


def test_what_is_installed_is_not_installed_again_until_other_packages_are_asked_for(bare):
    clone, programs = bare
    stub(programs / "python3", working(uv="echo uv $3 >>.venv/calls; exit 0"))
    (clone / "requirements.txt").write_text("one")
    for _ in range(2):
        assert install(bare) == (0, [], True)
        assert (clone / ".venv" / "calls").read_text() == "uv --version\nuv pip\n"
    (clone / "requirements.txt").write_text("another")
    assert install(bare) == (0, [], True)
    assert (clone / ".venv" / "calls").read_text() == "uv --version\nuv pip\n" * 2


def test_pip_installs_where_uv_cannot_be_had(bare):
    pip = "case $* in *only-binary*) exit 1;; esac; echo pip >>.venv/calls; exit 0"
    stub(bare[1] / "python3", working(pip, uv="exit 1"))
    assert install(bare) == (0, [], True)
    assert (bare[0] / ".venv" / "calls").read_text() == "pip\n"


def test_when_pip_fails_one_line_says_why_and_it_is_tried_again(bare):
    stub(bare[1] / "python3", working(pip="echo ERROR: No matching distribution; exit 1", uv="exit 1"))
    for _ in range(2):
        code, complaints, stamped = install(bare)
        assert (code, len(complaints), stamped) == (1, 1, False)
        assert "No matching distribution" in complaints[0]
        assert "network" in complaints[0]


def test_ci_runs_the_readmes_test_command():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert script.rstrip().endswith("make test")
    assert "make test" in readme
    assert "make book" in readme
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


# The glossary and the appendix

TERM = re.compile(r"\{term\}`(?:[^`<]*<)?([^`<>]+)>?`")


def glossary():
    """Give {term: definition} of the glossary, in its order."""
    page = (ROOT / "chapters" / "appendix" / "glossary.md").read_text(encoding="utf-8")
    entries = re.search(r"```\{glossary\}\n:sorted:\n(.*?)```", page, re.S)[1].strip("\n").split("\n\n")
    return dict(re.fullmatch(r"(\S[^\n]*)\n  (\S[^\n]*)", entry).groups() for entry in entries)


def terms_in(name):
    texts = [cell.source for cell in run.read_notebook(name).cells if cell.cell_type == "markdown"]
    return {term.strip().lower() for text in texts for term in TERM.findall(text)}


def test_every_term_that_a_lesson_or_a_definition_links_is_in_the_glossary():
    known = {term.lower() for term in glossary()}
    assert len(known) == len(glossary())
    used = set().union(*map(terms_in, run.chapters()))
    assert used, "lessons link their terms"
    assert used | {term.lower() for text in glossary().values() for term in TERM.findall(text)} <= known


def test_a_term_is_linked_by_the_lesson_that_the_glossary_names_and_named_where_it_is_linked():
    first = {}
    for term, text in glossary().items():
        for lesson in re.findall(r"First met in \{doc\}`/chapters/([\w/]+)`\.$", text):
            first.setdefault(lesson, set()).add(term.lower())
    assert set(first) <= set(run.chapters())
    met = set()
    for lesson in sorted(run.chapters(), key=order_in_the_book):
        assert first.get(lesson, set()) == terms_in(lesson) - met, lesson
        met |= terms_in(lesson)


def order_in_the_book(name):
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]].index(f"chapters/{name}")


def test_the_page_on_data_sets_says_what_the_package_says():
    from cvlab import data

    page = (ROOT / "chapters" / "appendix" / "datasets.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| `")
    ]
    assert [row[0].strip("`") for row in rows] == [*data.CATALOGUE]
    for name, *facts in rows:
        described = data.describe(name.strip("`")).splitlines()
        said = dict(line.split(": ", 1) for line in described)
        facts[-1] = re.sub(r"\[.+\]\((.+)\)", r"\1", facts[-1])  # a link's address, not its text
        assert facts == [said[name.strip("`")], said["splits"], said["licence"], said["source"]]
    kinds = dict(re.findall(r"^`(\w+)`\n: (.*)$", page, re.M))
    plain = {kind: text.replace("&lt;", "<").replace("&gt;", ">").replace("\\", "") for kind, text in kinds.items()}
    assert plain == data.OWN


def test_the_pages_are_published_where_colab_looks_for_their_notebooks():
    branch = re.search(r'^BRANCH = "(.*?)"', (ROOT / "book" / "lesson_pages.py").read_text(encoding="utf-8"), re.M)[1]
    workflow = (ROOT / ".github" / "workflows" / "pages.yml").read_text(encoding="utf-8")
    assert f"--initial-branch {branch}" in workflow and f'.git" {branch}' in workflow


# The detector that a lesson builds


def test_the_lesson_has_the_cells_that_its_experiment_executes(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from experiments import built

    cells = built.read_cells()
    assert list(cells) == list(built.ALL)
    for name, definition in (
        ("294942af", "def assign"),
        ("ret_fpn", "def feature_pyramid"),
        ("99e2c216", "def select"),
    ):
        assert definition in cells[name]


def test_the_detector_that_the_lesson_builds_is_as_good_as_cvlabs():
    rows = json.loads((ROOT / "experiments" / "results" / "built.json").read_text(encoding="utf-8"))["rows"]
    assert len(rows) >= 3 and {row["images"] for row in rows} == {100}
    assert all(abs(row["built"]["first loss"] - row["cvlab"]["first loss"]) < 1e-4 for row in rows)
    mean_ap50 = [statistics.mean(row[name]["AP50"] for row in rows) for name in ("built", "cvlab")]
    assert abs(mean_ap50[0] - mean_ap50[1]) <= 0.05


# The package


def public_functions():
    for path in sorted((ROOT / "cvlab").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield f"{path.stem}.{node.name}", node


def test_every_public_function_has_type_hints():
    without = []
    for name, function in public_functions():
        given = function.args
        arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        if function.returns is None or any(one and one.annotation is None for one in arguments):
            without.append(name)
    assert not without


# Lines of code of the teaching modules, at most: what a reader can read in an evening. Docstrings, comments and blank
# lines don't count.
MOST_LINES = {
    "boxes": 190,
    "checkpoints": 120,
    "classify": 170,
    "deconv": 155,
    "explain": 335,
    "faster_rcnn": 155,
    "learn": 110,
    "localize": 220,
    "metrics": 170,
    "propose": 170,
    "rcnn": 230,
    "retinanet": 330,
    "roi": 60,
    "segment": 240,
    "zoo": 190,
}
MOST_LINES_OF_A_FUNCTION = 40
NOT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def lines_of_code(source):
    """List the numbers of the lines that hold code: no blank lines, comments or docstrings."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {line for t in tokens if t.type not in NOT_CODE for line in range(t.start[0], t.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def test_lines_of_code_are_counted_without_docstrings_comments_and_blank_lines():
    source = (
        '"""A module."""\n\nx = 1  # one\n# two\n\n\ndef f(\n    a,\n):\n    """A\n    function."""\n    return a\n'
    )
    assert lines_of_code(source) == {3, 7, 8, 9, 12}


@pytest.mark.parametrize("name", MOST_LINES)
def test_a_teaching_module_and_each_of_its_functions_are_short(name):
    path = ROOT / "cvlab" / f"{name}.py"
    if not path.exists():
        pytest.skip(f"there is no {path.name}")
    source = path.read_text(encoding="utf-8")
    lines = lines_of_code(source)
    assert len(lines) <= MOST_LINES[name] <= 350
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    lengths = {node.name: len(lines & set(range(node.lineno, node.end_lineno + 1))) for node in functions}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES_OF_A_FUNCTION} == {}
