"""What reads a config and knows a workdir: it runs the families of `experiments/`.

fields.py      a config field with its default, meaning and rule; the loop that checks them
config.py      the fields that every run has; rules that involve several of them
variants.py    what stands behind the colon of --config: smoke, seeds
family.py      the contract: what a family defines and what it gets

run.py         a config -> a `Run`: data, devices, family, train step; built and checked
datasets.py    the two splits of its data
batches.py     its batches on the devices
health.py      which of its steps are known to be finite
position.py    its state and step, saved and restored
steps.py       its compiled steps and what they cost
ahead.py       its programs for devices that are not here
trainer.py     the training loop, from restoring or initialising to the report
record.py      log, progress, profile and speed of the training
train.py       --mode=train: seeds, signals, families that train in their own way
report.py      report.json
evaluator.py   numbers over a split, samples
judge.py       distances between generated and real images
figures.py     pictures and their provenance (provenance.py)
modes.py       --mode=eval, sample, export
restore.py     a trained run from its workdir
workdir.py     what a workdir records, and which changes of the config it refuses
command.py     command lines: one line and exit code 2 for a user's mistake
terminal.py    messages to the user
"""
