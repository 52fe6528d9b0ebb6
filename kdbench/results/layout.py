"""What lies in a results directory, and under which names."""

import os
from pathlib import Path

from kdbench.paths import found

RECORD, SPEC, ENVIRONMENT, CURVES, CHECKPOINT = "record.json", "spec.json", "environment.json", "curves.jsonl", "checkpoint.pt"
REPLACED = "record.json.replaced"
PLANNED = "planned.txt"
FIRST_FINISHED = "first_finished.txt"
FAILURE = "failure.txt"

SHORT = 8
"""Characters of a trial's id that people are shown; `kdbench show trial` finds it by them."""

FILES = {
    "trials/TRIAL/": "A folder for each trial, named by the trial's identity.",
    "trials/TRIAL/planned.txt": "When a run first planned to train the trial, in UTC; and on a second line when one last planned "
    "to train it again.",
    "trials/TRIAL/first_finished.txt": "Of a trial that is trained again: when it was first done, in UTC.",
    "trials/TRIAL/spec.json": "All that determines the trial, with every default written out.",
    "trials/TRIAL/environment.json": "What the trial runs on.",
    "trials/TRIAL/curves.jsonl": "One line of JSON for each epoch.",
    "trials/TRIAL/checkpoint.pt": "Where the training continues, as of the last whole epoch. It goes when the trial ends.",
    "trials/TRIAL/record.json": "The result, when the trial has ended.",
    "trials/TRIAL/outcomes.npz": "Of a trial that is done: which test images it got wrong, and for what it took them. "
    "`kdbench.load_outcomes` reads it.",
    "trials/TRIAL/failure.txt": "Of a trial that failed by an exception or with its process: the traceback, or the end of the log. "
    "It goes when the trial is trained again.",
    "trials/TRIAL/record.json.replaced": "The earlier result, while the trial is trained once more.",
    "trials/TRIAL/weights.safetensors": "The trained network: of every teacher, and of students where `keep_students` is set.",
    "trials/TRIAL/method.safetensors": "Beside it, the parts of the method that predict, such as SimKD's projector.",
    "trials/TRIAL/stages/": "Of a teacher: what methods learnt from it alone, such as FT's paraphraser.",
    "jobs/JOB/": "Of trials that train in another process: its log, and what is not yet in `trials/`.",
    "runs/RUN.json": "How far a run is, for `kdbench status`. It goes when the suite is run again.",
    "reports/SUITE/": "The tables and figures of a suite.",
    "cache/": "Images of folders, decoded. It may be deleted, and is made anew.",
    "macs.json": "Multiply-accumulate operations of networks, for estimates of what a plan costs.",
    "FILE.broken": "A file that could not be used and was set aside.",
    "trials/.TRIAL.NAME/": "A trial that is being merged or removed. After a kill, the next command that writes sets it right.",
    "claims/RUN.run": "A run with --claim: its host, its process, since when; and by the time of the file, that it lives.",
    "claims/TRIAL.NUMBER": "Which of these runs trains a trial, or a stage of a teacher.",
    ".lock": "Held by the process that writes here.",
    ".writer": "Which process that is: its host, its number, and since when.",
}
"""What lies there. Words in capitals stand for names."""


def record_files(root: Path) -> list[Path]:
    """Every record of a results directory, in the order of the trials' ids.

    Raises:
        OSError: a folder cannot be read: its records are not known, which is not to have none.
    """
    trials = root / "trials"
    try:
        names = sorted(os.listdir(trials))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [file for name in names if not name.startswith(".") and found(file := trials / name / RECORD)]
