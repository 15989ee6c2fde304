"""Drift statistics on arrays and on tables of counts: numpy in, scores out, no clock, file, thread or global state."""

from detectors.score import Score
from detectors.two_sample.chi_square import ChiSquare
from detectors.two_sample.jensen_shannon import JensenShannon
from detectors.two_sample.ks import KolmogorovSmirnov
from detectors.two_sample.mmd import MMD
from detectors.two_sample.psi import PSI
from detectors.two_sample.wasserstein import Wasserstein

__all__ = ["MMD", "PSI", "ChiSquare", "JensenShannon", "KolmogorovSmirnov", "Score", "Wasserstein"]
