"""Titles of the agreement report, in one way for the page, the figures and the command line."""

from __future__ import annotations

SPLIT_TITLES = {"training": "Training set", "test": "Test set"}
STATISTIC_TITLES = {
    "all": "statistics",
    "spearman": "Spearman r", "pearson": "Pearson r", "icc_agreement": "ICC(A,1)", "icc_consistency": "ICC(C,1)",
    "lin_ccc": "Lin's concordance", "bland_altman": "Bland-Altman", "passing_bablok": "Passing-Bablok line",
    "deming": "Deming line", "roc": "ROC", "diagnostic": "below 80", "diagnostic_low": "below 120",
    "three_classes": "three classes", "cut_offs": "cut-offs", "trained_youden": "the training set's cut-off (Youden)",
    "trained_specific": "the training set's cut-off (specificity 97 %)",
}
"""Of the statistics of a set, by their fields."""
