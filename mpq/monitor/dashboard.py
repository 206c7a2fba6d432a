"""A Grafana dashboard of the metrics that `mpq.monitor.prometheus` exports. No torch."""

from __future__ import annotations

from typing import Any

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_STATS = (
    ("Alarms", "sum(mpq_alarms)", "{{kind}}", "none"),
    ("Calls per second", "sum(rate(mpq_calls_total[$__rate_interval]))", "calls", "reqps"),
    ("Sampled calls per second", "sum(rate(mpq_sampled_calls_total[$__rate_interval]))", "sampled calls", "reqps"),
    ("Shadowed calls per second", "sum(rate(mpq_shadowed_calls_total[$__rate_interval]))", "shadowed calls", "reqps"),
)
_SERIES = (
    ("Drift: stability index over its limit (1 or more is an alarm)", "mpq_stability_index / mpq_stability_limit", "{{tensor}}", "none"),
    ("Stability index", "mpq_stability_index", "{{tensor}}", "none"),
    ("Share of values beyond the calibrated range", "mpq_beyond_range", "{{tensor}}", "percentunit"),
    ("Values that are not finite", "increase(mpq_not_finite_total[$__rate_interval])", "{{tensor}}", "none"),
    ("KL divergence from the reference, in nats", "mpq_kl_divergence", "{{bound}}", "none"),
    ("Top-1 agreement with the reference", "mpq_agreement", "{{bound}}", "percentunit"),
    ("Kernels that ran in sampled calls", "sum by (kernel) (increase(mpq_kernel_runs_total[$__rate_interval]))", "{{kernel}}", "none"),
    ("Layers that ran through another kernel than expected", "mpq_kernel_fallbacks", "{{layer}}: {{kernel}}, not {{expected}}", "none"),
)
_WIDTH, _STAT_HEIGHT, _SERIES_HEIGHT = 24, 4, 8


def dashboard() -> dict[str, Any]:
    """The dashboard, as Grafana imports it; it asks for a Prometheus data source."""
    wide, half = _WIDTH // len(_STATS), _WIDTH // 2
    panels = [_panel(*stat, kind="stat", x=wide * place, y=0, w=wide, h=_STAT_HEIGHT) for place, stat in enumerate(_STATS)]
    for place, series in enumerate(_SERIES):
        row, column = divmod(place, 2)
        top = _STAT_HEIGHT + row * _SERIES_HEIGHT
        panels.append(_panel(*series, kind="timeseries", x=half * column, y=top, w=half, h=_SERIES_HEIGHT))
    return {
        "title": "mpq: a quantized model while it runs",
        "uid": "mpq-monitor",
        "tags": ["mpq"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}]},
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, start=1)],
    }


def _panel(title: str, query: str, legend: str, unit: str, *, kind: str, x: int, y: int, w: int, h: int) -> dict[str, Any]:
    options = (
        {"reduceOptions": {"calcs": ["lastNotNull"]}} if kind == "stat" else {"legend": {"displayMode": "list", "placement": "bottom"}}
    )
    return {
        "title": title,
        "type": kind,
        "datasource": _SOURCE,
        "gridPos": {"x": x, "y": y, "w": w, "h": h},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": options,
        "targets": [{"refId": "A", "datasource": _SOURCE, "expr": query, "legendFormat": legend}],
    }
