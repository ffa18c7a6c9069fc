"""The benchmarks run, and write down everything that they promise. No figure is judged here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RATIOS = {
    "delivered_vs_bare_loop",
    "delivery_phase_vs_bare_loop",
    "delivered_vs_empty_tasks",
    "delivered_vs_by_hand",
    "tick_1m_vs_1k",
    "limit_peak",
    "limit_used",
    "hooks_kept_vs_bare",
    "vendor_vs_bare_pool",
}
RATES = {
    "delivered_per_s",
    "intake_producer_per_s",
    "intake_http_per_s",
    "urgent_p95_s",
    "hooks_kept_per_s",
    "hooks_read_per_s",
    "vendor_in_air",
    "decisions_per_s",
    "worker_rss_growth",
}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_quick_run_writes_every_figure(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--output", str(output)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    results = json.loads(output.read_text())
    assert results["ratios"].keys() == RATIOS
    assert results["rates"].keys() == RATES
    figures = {**results["ratios"], **results["rates"]}
    assert all(isinstance(value, int | float) for value in figures.values()), figures
    assert {name for name, value in figures.items() if value <= 0} <= {"worker_rss_growth"}
    assert results["machine"]["processors"] >= 1
    for name in (*RATIOS, "delivered_per_s"):
        assert name in results["met"]
    assert "MISSED" in run.stdout or "met" in run.stdout
