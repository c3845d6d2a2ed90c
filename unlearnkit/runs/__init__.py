"""Reproducible runs of the notebooks: configuration, plan, execution, record, report.

>>> config = configure(globals(), notebook="02_llm_unlearning")  # the cell after the parameters
>>> run = open_run(config)
>>> run.scores(table); run.figure(fig, "curve", alt="NLL against steps")
>>> read_runs(notebook="02_llm_unlearning")[0].scores  # later, from anywhere
"""
