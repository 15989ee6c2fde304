"""The style of the code, as far as a test can see it."""

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = [name for name in ("detectors", "driftwatch", "modelops", "demo") if (ROOT / name).is_dir()]
FILES = sorted(path.relative_to(ROOT) for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
EVERYTHING = sorted(
    path.relative_to(ROOT)
    for folder in (*PACKAGES, "tests", "benchmarks", "docs", "helm", "grafana", "sample_streams")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".tpl"}
)
SPEAKS = {Path("driftwatch", name) for name in ("cli.py", "listing.py", "demo.py", "check.py")}
SPEAKS |= {Path("modelops/cli.py"), Path("demo/__main__.py")}
ENTRY_POINTS = {"driftwatch.__main__", "driftwatch.cli", "modelops.__main__", "modelops.cli", "demo.__main__"}
FOR_USERS = {  # a library's part: only its users import it
    "driftwatch.sources.memory",
    "detectors.evaluate",
    "detectors.sequential.river_detectors",
}
BODY, PARAMETERS, LINES, CLOSURE = 70, 8, 400, 6
FORBIDDEN_NAMES = re.compile(r"(Manager|Helper|Utils?|Base|Factory|Abstract)$")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse((ROOT / file).read_text("utf-8"))


def functions(file: Path) -> Iterator[Function]:
    return (node for node in ast.walk(tree(file)) if isinstance(node, Function))


def calls(file: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the dotted text of what is called."""
    return ((ast.unparse(node.func), node) for node in ast.walk(tree(file)) if isinstance(node, ast.Call))


def module(file: Path) -> str:
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(file): file for file in FILES}


def imported(file: Path) -> set[str]:
    """The own modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & MODULES.keys()


def closure(name: str) -> set[str]:
    """The own modules that an import of this one loads, itself among them; packages that hold code count as well."""
    found: set[str] = set()
    waiting = {name}
    while waiting:
        found |= waiting
        reached = {other for one in waiting for other in imported(MODULES[one])}
        waiting = reached - found
    return found


def offences(rule: Callable[[Path], Iterable[object]], files: Iterable[Path] = FILES) -> dict[str, list[object]]:
    """What a rule says against each file; files without anything are left out."""
    said = {str(file): list(rule(file)) for file in files}
    return {file: found for file, found in said.items() if found}


def test_there_are_files_to_look_at() -> None:
    assert {"detectors.score", "driftwatch.pipeline"} <= MODULES.keys()


def test_a_body_has_at_most_70_lines() -> None:
    def long(file: Path) -> Iterator[str]:
        return (f.name for f in functions(file) if (f.end_lineno or 0) - f.body[0].lineno + 1 > BODY)

    assert offences(long) == {}


def test_a_function_has_at_most_8_parameters() -> None:
    def many(file: Path) -> Iterator[str]:
        for function in functions(file):
            parameters = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            if len([p for p in parameters if p.arg not in {"self", "cls"}]) > PARAMETERS:
                yield function.name

    assert offences(many) == {}


def test_a_file_has_at_most_400_lines() -> None:
    def lines(file: Path) -> list[int]:
        return [n for n in [len((ROOT / file).read_text("utf-8").splitlines())] if n > LINES]

    assert offences(lines) == {}


def test_a_detector_needs_at_most_6_own_files() -> None:
    def needed(file: Path) -> set[str]:
        found = {name for name in closure(module(file)) if tree(MODULES[name]).body}
        return found if len(found) > CLOSURE else set()

    detectors = [file for file in FILES if file.parts[:2] == ("detectors", "two_sample")]
    assert len(detectors) > 5
    assert offences(needed, detectors) == {}


def test_every_module_is_imported_or_an_entry_point() -> None:
    reached = {name for file in FILES for name in imported(file) - {module(file)}}
    with_code = {name for name, file in MODULES.items() if tree(file).body and file.name != "__init__.py"}
    assert with_code - reached == ENTRY_POINTS - reached | FOR_USERS


def test_no_time_is_naive() -> None:
    least = {"datetime.now": 1, "datetime.fromtimestamp": 2, "datetime.datetime.now": 1}

    def naive(file: Path) -> Iterator[str]:
        for name, call in calls(file):
            n_given = len(call.args) + len(call.keywords)
            has_zone = len(call.args) == 8 or any(keyword.arg == "tzinfo" for keyword in call.keywords)
            if (
                name.rpartition(".")[2] in {"utcnow", "utcfromtimestamp"}
                or n_given < least.get(name, 0)
                or (name in {"datetime", "datetime.datetime"} and not has_zone)
            ):
                yield ast.unparse(call)

    assert offences(naive) == {}


def test_only_what_speaks_to_a_person_prints() -> None:
    def printing(file: Path) -> Iterator[str]:
        return (name for name, _ in calls(file) if name == "print" and file not in SPEAKS)

    assert offences(printing) == {}


def test_no_exception_is_caught_bare_or_whole() -> None:
    def caught(file: Path) -> Iterator[str]:
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.ExceptHandler):
                what = "" if node.type is None else ast.unparse(node.type)
                if what in {"", "Exception", "BaseException"}:
                    yield f"line {node.lineno}"

    assert offences(caught) == {}


def test_detectors_read_no_clock_write_no_log_and_touch_no_file() -> None:
    edge = {"time", "datetime", "logging", "os", "pathlib", "socket", "threading", "random", "driftwatch"}

    def reached(file: Path) -> set[str]:
        names: set[str] = set()
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module or "")
        return {name.partition(".")[0] for name in names} & edge

    assert offences(reached, [file for file in FILES if file.parts[0] == "detectors"]) == {}


def test_a_class_is_named_for_what_it_is() -> None:
    def vague(file: Path) -> Iterator[str]:
        names = (node.name for node in ast.walk(tree(file)) if isinstance(node, ast.ClassDef))
        return (name for name in names if FORBIDDEN_NAMES.search(name))

    assert offences(vague) == {}


def test_what_is_public_says_what_it_is() -> None:
    def silent(file: Path) -> Iterator[str]:
        if tree(file).body and ast.get_docstring(tree(file)) is None:
            yield "the module"
        for node in tree(file).body:
            is_named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if is_named and not node.name.startswith("_") and ast.get_docstring(node) is None:
                yield node.name

    assert offences(silent) == {}


def test_nothing_is_left_for_later_no_checker_is_silenced_and_no_machine_is_named() -> None:
    def left(file: Path) -> list[str]:
        text = (ROOT / file).read_text("utf-8")
        return re.findall(r"\b(?:TODO|FIXME|XXX)\b|# type: ignore|\.\./shared", text)

    assert offences(left, [file for file in EVERYTHING if file != Path("tests/test_tidy.py")]) == {}
