"""Marking learners' notebooks: `python -m classroom.grade SUBMISSIONS…` (docs/instructors.md).

Every notebook is run again in a process of its own, with limits on time, memory and output.
What its checks recorded is then marked here, by the installed package: nothing that a
notebook does to the helpers in its own memory counts.

| module | holds |
|---|---|
| `submissions` | which notebooks there are, whose, and of which lesson |
| `marking` | an executed notebook's answers, marked anew |
| `gradebook` | the CSV and the HTML page |
| `__main__` | the command line, and the running |
"""
