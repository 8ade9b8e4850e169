"""The paper's claims put to the test in simulation: `dexpie experiment ladder|async|staged`.

`settings` says what is run, `unit` collects and trains and evaluates one task with one training
seed, `jobs` runs units on the cores there are and resumes them, `results` turns raw rollouts into
figures over seeds, `page` into a report. docs/protocol.md fixed the analysis beforehand.
"""
