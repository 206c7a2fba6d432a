"""The report opened in headless Chromium: console errors, overflow, size, time until it can be used.

    python -m benchmarks.report --models DIR [--only resnet20 stories15m layers500] [--work FOLDER]

Needs a Chromium or Chrome on the PATH (Debian: `apt-get install chromium`). Each report is opened at the widths of a desktop and of a
phone, light and dark. A copy of the page with a few lines of script in front tells what happened in it; `--work` keeps pages and pictures.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np

import mpq
from benchmarks.main_job import cases
from mpq.formats.scheme import parse_scheme
from mpq.records.layer import Layer
from mpq.records.sensitivity import Sensitivity
from mpq.records.sensitivity_header import Rest, SensitivityHeader
from mpq.report.render import render
from mpq.report.report_input import Subject
from mpq.search.frontier import frontier

WIDTHS = {"desktop": 1280, "phone": 500}  # headless Chromium opens no narrower window; the phone's page lies in a frame of 390
FRAME = 390
LARGEST, SLOWEST = 2_000_000, 2000.0
TEXTS = ("int2", "int3", "int4", "int4-g128", "int4-g32", "int5", "int6", "int8", "fp16")
PROBE = """<script>
const faults = [];
addEventListener("error", (event) => faults.push(event.message));
const said = console.error; console.error = (...words) => { faults.push(words.join(" ")); said(...words); };
addEventListener("load", () => {
  const page = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const found = {faults, width: innerWidth, over: page.scrollWidth - page.clientWidth, milliseconds: performance.now(), dark,
                 requests: performance.getEntriesByType("resource").length};
  (parent === window ? document : parent.document).documentElement.dataset.measured = JSON.stringify(found);
});
</script>"""


def subjects(models: Path, only: list[str]) -> Iterator[tuple[str, Subject]]:
    """Name and material of each report."""
    for name, model, calibration, _ in cases(models, only):
        table = mpq.analyze(model, calibration, candidates=("2..8", "16"), method="fisher", quantizer="mse")
        plan = mpq.search(table, "4.5bits").plan
        yield name, Subject("plan.yaml", table=table, plan=plan, frontier=frontier(table, plan))
    if "layers500" in only:
        table = synthetic(500)
        plan = mpq.search(table, "4.5bits").plan
        yield "layers500", Subject("plan.yaml", table=table, plan=plan, frontier=frontier(table, plan))


def synthetic(count: int) -> Sensitivity:
    """A table of `count` layers whose errors fall by four for each bit, with noise."""
    generator = np.random.default_rng(0)
    layers = [
        Layer(
            f"model.layers.{i // 7}.part{i % 7}", (f"model.layers.{i // 7}.part{i % 7}.weight",), (512, 512), (0,), "float32", "linear", ()
        )
        for i in range(count)
    ]
    header = SensitivityHeader(
        model={"path": "synthetic.pt2", "sha256": "a" * 64, "kind": "export"},
        data={"source": "none", "sha256": "b" * 64, "description": "no data", "held_out": 0.25, "seed": 0},
        settings={"metric": "kl_divergence", "probabilities": False, "method": "measure", "quantizer": "rtn"},
        layers=tuple(layers),
        candidates={layer.name: tuple(parse_scheme(text) for text in TEXTS) for layer in layers},
        rest=Rest(header_bytes=50_000, data_bytes=4096, weights=1024, original_bytes=4096),
    )
    table = Sensitivity(header, finish={"cost": {}, "check": {}})
    for layer in layers:
        for scheme in header.candidates[layer.name]:
            error = float(generator.lognormal(-4, 1)) * 4.0 ** -(scheme.stored_bits(layer.matrix) / layer.weights)
            table.add(layer.name, scheme, (error * generator.lognormal(0, 0.1, size=8)).tolist())
    return table


def opened(browser: str, page: Path, kind: str, *, dark: bool, picture: Path | None) -> dict[str, Any]:
    """What the page told of itself in a window of this kind."""
    probed = page.with_suffix(f".{kind}.html")
    text = page.read_text(encoding="utf-8").replace("<head>", f"<head>{PROBE}", 1)
    if kind == "phone":
        inner = page.with_suffix(".inner.html")
        inner.write_text(text, encoding="utf-8")
        text = f'<!doctype html><body style="margin:0"><iframe src="{inner.name}" style="border:0;width:{FRAME}px;height:844px"></iframe>'
    probed.write_text(text, encoding="utf-8")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", f"--window-size={WIDTHS[kind]},900"]
    options += [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    if picture is not None:
        subprocess.run([browser, *options, f"--screenshot={picture}", probed.as_uri()], check=True, capture_output=True, timeout=120)
    done = subprocess.run([browser, *options, "--dump-dom", probed.as_uri()], check=True, capture_output=True, text=True, timeout=120)
    told = re.search(r'data-measured="([^"]*)"', done.stdout)
    if told is None:
        raise SystemExit(f"{page}: the page never finished loading")
    found: dict[str, Any] = json.loads(unescape(told[1]))
    assert found["dark"] == dark, "the browser did not take the colour scheme"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=["resnet20", "stories15m", "layers500"])
    parser.add_argument("--work", type=Path, help="folder that keeps the pages and pictures")
    given = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
    if browser is None:
        raise SystemExit("no Chromium on the PATH: install it, for example with `apt-get install chromium`")
    with tempfile.TemporaryDirectory() as folder:
        work = given.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        for name, subject in subjects(given.models, given.only):
            page = (work / f"{name}.html").resolve()
            page.write_text(render(subject), encoding="utf-8")
            for kind in WIDTHS:
                for dark in (False, True):
                    picture = (work / f"{name}.{kind}.{'dark' if dark else 'light'}.png").resolve() if given.work else None
                    found = opened(browser, page, kind, dark=dark, picture=picture)
                    size = page.stat().st_size
                    good = not found["faults"] and found["over"] <= 0 and size < LARGEST and found["milliseconds"] < SLOWEST
                    requests = found["requests"]
                    print(
                        f"{name:11} {kind:7} {'dark' if dark else 'light':5} {found['width']:5} px  {size:9,} bytes  "
                        f"{found['milliseconds']:6.0f} ms  {found['over']:4} px over  {requests} requests  "
                        f"{len(found['faults'])} console errors: {'yes' if good and not requests else 'NO'}",
                        *found["faults"],
                        flush=True,
                    )


if __name__ == "__main__":
    main()
