"""An observer of trainings for MLflow: settings, losses, learning rates, alarms, the last sheet."""

import mlflow

from simgan_aug import hookimpl

EVERY = 20
"""Steps between two points of a curve."""

RUN_ID = "mlflow-run-id.txt"
"""Lies beside the run's other files: a training that is resumed goes on in the same MLflow run."""


@hookimpl
def simgan_training_started(out, config):
    """Begin a run of MLflow's, or go on with it."""
    known = (out / RUN_ID).read_text() if (out / RUN_ID).exists() else None
    run = mlflow.start_run(run_id=known, run_name=None if known else out.name)
    if known is None:
        (out / RUN_ID).write_text(run.info.run_id)
        for table, fields in config.to_builtins().items():
            mlflow.log_params({f"{table}.{name}": value for name, value in fields.items()})


@hookimpl
def simgan_training_step(step):
    """Log losses and learning rates now and then."""
    if step.number % EVERY == 0 or step.number == 1:
        rates = {f"rate/{name}": rate for name, rate in step.rates.items()}
        mlflow.log_metrics({**step.losses, **rates}, step=step.number)


@hookimpl
def simgan_training_alarm(step, alarm):
    """Log what was measured."""
    mlflow.log_metric(f"alarm/{alarm.name}", alarm.value, step=step.number)


@hookimpl
def simgan_training_rollback(rollback):
    """Note why."""
    mlflow.set_tag(f"rollback/{rollback.step}", rollback.reason)


@hookimpl
def simgan_training_ended(reason, preview):
    """Log the sheet of the refiner that was saved, and how it ended."""
    if reason in ("finished", "interrupted"):
        mlflow.log_image(preview(), "sheet.png")
    mlflow.set_tag("reason", reason)
    mlflow.end_run("FINISHED" if reason == "finished" else "KILLED")
