"""The instructor's report: lessons run with chosen parameters, on one page (`make report`).

    python -m classroom.report 02 05 -p MODEL_NAME=course-gpt-1m -p MODEL_NAME=course-gpt-4m

`plan` says what is run, `execute` runs one notebook, `collect` reads what came out of it,
`compare` sets it beside an earlier report, `figures` and `page` show it.
"""
