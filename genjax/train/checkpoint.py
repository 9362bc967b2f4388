"""Checkpoints: orbax underneath, the whole state in each, the config beside it."""

from pathlib import Path

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from genjax.errors import UserError

FORMAT = 1


class Checkpoints:
    """The checkpoints of one run, `<directory>/<step>/`.

    Saving is asynchronous: `save` returns when the values are on the host, and the files are
    written while training goes on. A step is listed whole or not at all.

    Args:
      directory: where they live; made if missing.
      keep_last: the newest steps to keep.
      keep_every: also keep every step that is a multiple of this, 0 for none.
      best_metric: also keep the step with the best value of this metric, "" for none.
      best_mode: "min" or "max".
    """

    def __init__(self, directory, keep_last=1, keep_every=0, best_metric="", best_mode="min"):
        policy = checkpoint_managers.preservation_policy
        keep = [policy.LatestN(keep_last)]
        if keep_every:
            keep.append(policy.EveryNSteps(keep_every))
        best_of = None
        if best_metric:

            def best_of(metrics):
                return metrics[best_metric]

            keep.append(
                policy.BestN(
                    get_metric_fn=best_of,
                    reverse=best_mode == "min",  # BestN keeps the end of the sorted list
                    n=1,
                    keep_checkpoints_without_metrics=False,
                )
            )
        self.directory = Path(directory).absolute()
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy.AnyPreservationPolicy(keep),
                best_fn=best_of,
                best_mode=best_mode,
                # Renamed before it is deleted: a half-deleted step is never listed.
                todelete_subdir=".trash",
                cleanup_tmp_directories=True,
            ),
        )

    def steps(self):
        """Steps that can be restored, oldest first."""
        return sorted(self._manager.all_steps())

    def best_step(self):
        """The kept step with the best metric."""
        step = self._manager.best_step()
        if step is None:
            raise UserError(f"no checkpoint in {self.directory} was saved with a metric to rank it")
        return step

    def save(self, step, state, config, metrics=None):
        """Saves `state` (one copy of it), the config (a dict) and the metrics at `step`."""
        # Copies of our own: the state's buffers are donated to the next step.
        state = jax.tree.map(lambda x: x.copy(), state)
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            meta=ocp.args.JsonSave({"format": FORMAT, "config": config, "leaves": _leaves(state)}),
        )
        self._manager.save(step, args=args, metrics=metrics)

    def restore(self, template, step=None):
        """The state saved at `step` (default the newest), in the form of `template`.

        Args:
          template: a pytree of arrays or `jax.ShapeDtypeStruct`s.

        Raises:
          UserError: there is no such step, or it holds another form of state.
        """
        steps = self.steps()
        step = steps[-1] if step is None and steps else step
        if step not in steps:
            listed = ", ".join(map(str, steps)) or "none"
            raise UserError(
                f"no checkpoint of step {step} in {self.directory}; there are: {listed}"
            )
        meta = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))
        if meta["meta"]["format"] > FORMAT:
            raise UserError(f"{self.directory}/{step} was written by a newer genjax")
        found, wanted = meta["meta"]["leaves"], _leaves(template)
        for path in sorted(found.keys() | wanted.keys()):
            if found.get(path) != wanted.get(path):
                raise UserError(
                    f"{self.directory}/{step} does not fit this model: {path} is "
                    f"{found.get(path, 'missing')} there, {wanted.get(path, 'missing')} here"
                )
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        return self._manager.restore(step, args=args)["state"]

    def close(self):
        """Waits for the save under way."""
        self._manager.close()


def _leaves(tree):
    """{path: "dtype[shape]"} of every leaf."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(p): f"{x.dtype}{list(x.shape)}" for p, x in flat}
