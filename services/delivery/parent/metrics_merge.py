"""Metrics merge: puts the metrics of the workers and of their parent into one page, in the text format of Prometheus.

Law 1: pure.
Law 2: all samples of one metric stand together, each worker's with the label `worker`. A metric that the workers have is shown for them
alone, unless it is about a process.
"""

import re
from collections.abc import Mapping

_ABOUT_PROCESSES = ("process_", "python_")
_SAMPLE = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)(\{)?")


def merged_metrics(parent: str, workers: Mapping[int, str]) -> str:
    """Return the page of the parent with the pages of its workers, by their numbers."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for number, page in sorted(workers.items()):
        for name, (head, lines) in _families(page).items():
            heads.setdefault(name, head)
            samples.setdefault(name, []).extend(_labelled(line, number) for line in lines)
    for name, (head, lines) in _families(parent).items():
        if name not in samples or name.startswith(_ABOUT_PROCESSES):
            heads.setdefault(name, head)
            samples.setdefault(name, []).extend(lines)
    return "".join(f"{line}\n" for name, head in heads.items() for line in (*head, *samples[name]))


def _families(page: str) -> dict[str, tuple[list[str], list[str]]]:
    """Return the comments and the samples of each metric, by its name."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    name = ""
    for line in page.splitlines():
        if line.startswith(("# HELP ", "# TYPE ")):
            name = line.split(" ", 3)[2]
            found.setdefault(name, ([], []))[0].append(line)
        elif line and not line.startswith("#"):
            found.setdefault(name, ([], []))[1].append(line)
    return found


def _labelled(line: str, number: int) -> str:
    """Return a sample with the label of its worker."""
    match = _SAMPLE.match(line)
    if match is None:
        return line
    rest = line[match.end() :]
    between = "," if match[2] and not rest.startswith("}") else ""
    return f'{match[1]}{{worker="{number}"{between}{rest if match[2] else "}" + rest}'
