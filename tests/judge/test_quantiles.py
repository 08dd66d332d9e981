"""The gate's own quantiles against scipy's."""

from __future__ import annotations

import pytest
from scipy import special

from bench.judge.statistics import _binomial_cdf, digamma, t_quantile, t_tail, trigamma, z_quantile


@pytest.mark.parametrize("df", [1.0, 2.0, 5.5, 6.0, 13.0, 26.3, 29.0, 49.9, 200.0])
@pytest.mark.parametrize("level", [1e-6, 0.0005, 0.001, 0.0035, 0.0075, 0.05, 0.2, 0.5])
def test_student_is_scipys(df: float, level: float) -> None:
    assert t_quantile(level, df) == pytest.approx(-special.stdtrit(df, level), rel=1e-9, abs=1e-9)
    assert t_tail(2.5, df) == pytest.approx(1.0 - special.stdtr(df, 2.5), rel=1e-9)


@pytest.mark.parametrize("share", [0.001, 0.2, 0.5, 0.8, 0.9999])
def test_normal_is_scipys(share: float) -> None:
    assert z_quantile(share) == pytest.approx(special.ndtri(share), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("x", [0.05, 0.5, 1.0, 3.0, 10.0, 14.5, 300.0])
def test_gamma_derivatives_are_scipys(x: float) -> None:
    assert digamma(x) == pytest.approx(special.digamma(x), rel=1e-9, abs=1e-10)
    assert trigamma(x) == pytest.approx(special.polygamma(1, x), rel=1e-9)


@pytest.mark.parametrize("n", [1, 7, 50, 459, 30_000, 2_000_000])
@pytest.mark.parametrize("p", [0.001, 0.3, 0.5, 0.99, 0.999])
def test_binomials_are_scipys(n: int, p: float) -> None:
    for spread in (-4.0, -1.0, 0.0, 1.0, 4.0):
        k = min(max(round(n * p + spread * (n * p * (1.0 - p)) ** 0.5), 0), n)
        assert _binomial_cdf(k, n, p) == pytest.approx(special.bdtr(float(k), n, p), rel=2e-6)


@pytest.mark.parametrize(("level", "df"), [(0.0, 5.0), (0.6, 5.0), (0.01, 0.5)])
def test_what_has_no_quantile_is_refused(level: float, df: float) -> None:
    with pytest.raises(ValueError, match="no quantile"):
        t_quantile(level, df)
