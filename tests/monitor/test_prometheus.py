import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpq.monitor.dashboard import dashboard
from mpq.monitor.watch import Monitor, monitor
from mpq.records.baseline import Baseline
from tests.monitor.conftest import data, packed_model, run_with_fallback

CLIENT = pytest.importorskip("prometheus_client")
PROMETHEUS = shutil.which("prometheus")


@pytest.fixture
def watching(baseline: Baseline) -> Iterator[Monitor]:
    """A monitor that has seen 60 calls, all of them also run through the reference."""
    module = packed_model()
    with monitor(module, baseline, sample=1.0, shadow=1.0, reference=packed_model()) as made:
        run_with_fallback(module, data(1))
        yield made


def registered(watching: Monitor) -> Any:
    from mpq.monitor.prometheus import Metrics

    registry = CLIENT.CollectorRegistry()
    registry.register(Metrics(watching, {"model": "small"}))
    return registry


def test_prometheus_reads_the_values(watching: Monitor) -> None:
    text = CLIENT.generate_latest(registered(watching)).decode()
    assert 'mpq_calls_total{model="small"} 60.0\n' in text
    assert 'mpq_beyond_range{model="small",tensor="input"} 0.0\n' in text
    assert 'mpq_alarms{kind="drift",model="small"} 0.0\n' in text
    assert 'mpq_kernel_runs_total{kernel="dequantize",model="small"} 2.0\n' in text
    assert 'mpq_kernel_fallbacks{expected="rows",kernel="dequantize",layer="0",model="small"} 1.0\n' in text
    assert 'mpq_agreement{bound="mean",model="small"} 1.0\n' in text


def test_the_dashboard_asks_for_metrics_that_exist(watching: Monitor) -> None:
    exported = {line.partition("{")[0] for line in CLIENT.generate_latest(registered(watching)).decode().splitlines() if line[:1] != "#"}
    asked = {name for query in queries() for name in re.findall(r"\bmpq_\w+", query)}
    assert asked == {name for name in exported if not name.endswith("_created")}


def queries() -> list[str]:
    return [target["expr"].replace("$__rate_interval", "1m") for panel in dashboard()["panels"] for target in panel["targets"]]


@pytest.mark.skipif(PROMETHEUS is None, reason="Prometheus is not installed: apt-get install prometheus")
def test_a_real_prometheus_scrapes_it_and_answers_every_query_of_the_dashboard(watching: Monitor, tmp_path: Path) -> None:
    server, thread = CLIENT.start_http_server(0, addr="127.0.0.1", registry=registered(watching))
    targets = [{"targets": [f"127.0.0.1:{server.server_port}"]}]
    job = {"job_name": "mpq", "scrape_interval": "200ms", "scrape_timeout": "200ms", "static_configs": targets}
    (tmp_path / "prometheus.yml").write_text(json.dumps({"scrape_configs": [job]}))  # JSON is YAML
    port = free_port()
    assert PROMETHEUS is not None
    line = [PROMETHEUS, f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    started = subprocess.Popen([*line, f"--web.listen-address=127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for query in queries():
            assert answered(port, query), query
        (found,) = answered(port, 'mpq_agreement{bound="mean", model="small"}')
        assert found["value"][1] == "1"
    finally:
        started.terminate()
        started.wait()
        server.shutdown()
        server.server_close()
        thread.join()


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
    return port


def answered(port: int, query: str) -> list[Any]:
    """What Prometheus answers, once there is something; nothing after 20 seconds."""
    address = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    end = time.monotonic() + 20
    found: list[Any] = []
    while not found and time.monotonic() < end:
        try:
            with urllib.request.urlopen(address, timeout=5) as reply:
                found = json.load(reply)["data"]["result"]
        except OSError:
            time.sleep(0.1)
        else:
            time.sleep(0 if found else 0.1)
    return found
