"""Benchmarks: one module per question, rivals in the same run, ratios with their spread.

``python -m bench messages`` and so on; ``python -m bench --help`` lists the questions. Contenders
take turns within every round, so that what else the machine does hits all of them alike; read the
ratios, not the absolute figures.
"""
