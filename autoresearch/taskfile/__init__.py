"""Task files: any artifact with a score, optimised by the same engine as pretraining.

    task = load(Path("tasks/speed/task.yaml"))
    with TaskStudy.write(path) as study:
        study.loop.run(study.mutator(), task.budget)

model.py       what a task file may say
reading.py     YAML, strictly, with line numbers
files.py       the task's folder: what a mutator sees, what judges
guard.py       the scorer's files: held in memory, checked for tampering
score.py       what a scorer printed -> one number
measure.py     runner and scorer, jailed -> a Replicate
repository.py  the private git repository beside the task
tree.py        the user's own files follow the champion, and nothing else touches them
study.py       all of it together
"""
