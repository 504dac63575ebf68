"""The callbacks of a training: progress, an epoch's log lines and record, checkpoints."""
import math
import time
from typing import Any, Callable, Dict, Iterable, Optional, Sequence

import numpy as np
from mindspore import Parameter, Tensor, amp
from mindspore.train import Callback
from tqdm import tqdm

from src.common.errors import DivergedError
from src.common.logs import bar, has_bar, log_epoch, logger
from src.device.dry_run import is_dry_run
from src.run.saver import Saver
from src.training.step import Totals

BAR_INTERVAL = 0.5    # seconds from one reading of the loss to the next; each waits for the device
LINE_INTERVAL = 30.0


def last_loss(cb_params: Any) -> np.float32:
    """Return the loss of the last step, which back ends give as a scalar or as an array of one."""
    return cb_params.net_outputs.asnumpy().astype(np.float32).reshape(-1)[0]


def check_finite(totals: Tensor, epoch: int, steps: int) -> Totals:
    """Read ``totals``, and raise DivergedError if one of the epoch's ``steps`` so far had a loss that is not finite."""
    sums = Totals(*totals.asnumpy().tolist())
    if sums.finite < steps and not is_dry_run():
        raise DivergedError(f"the loss of epoch {epoch}, step {int(sums.finite) + 1} is not finite (sum of the "
                            f"losses: {sums.loss}): training has diverged; the last checkpoint is older; begin again "
                            "with a lower --learning_rate (or, in pretraining, a higher --temperature)")
    return sums


def check_weights(weights: Sequence[Parameter], epoch: int, steps: int) -> None:
    """Raise DivergedError where the epoch's last update has made a weight NaN or infinite."""
    # all_finite gives one answer for all weights, so the host waits for the device once and not once per weight.
    if not amp.all_finite(list(weights)).asnumpy().all() and not is_dry_run():
        name = next(weight.name for weight in weights if not np.isfinite(weight.asnumpy()).all())
        raise DivergedError(f"{name} is not finite after epoch {epoch}, step {steps}: training has diverged; the last "
                            "checkpoint is older; begin again with a lower --learning_rate")


class Progress(Callback):
    """Shows loss, images per second and time left: a bar on a terminal, a line every half minute in a file.

    Its times are of steps alone, without the measurements and checkpoints between the epochs, as are those of the
    epoch's line. With data sinking the host does not see the steps of an epoch, and nothing is shown before its end.

    Whenever it reads the loss, it raises DivergedError if that is not finite any more. ``totals`` are the train step's
    sums, and ``epochs`` those of the whole run.
    """

    def __init__(self, totals: Tensor, epochs: int, images_per_step: int):
        super().__init__()
        self.totals = totals
        self.epochs = epochs
        self.images_per_step = images_per_step
        self.on_terminal = has_bar()
        self.bar: Optional[tqdm] = None
        self.epoch_start_step = 0
        self.last = self.shown = 0.0      # when the last step has ended, and when the loss was shown
        self.has_compiled = False
        self.steps, self.seconds = 0, 0.0  # after the first step, which compiles the graph

    def on_train_epoch_begin(self, run_context):
        cb_params = run_context.original_args()
        self.last = self.shown = time.perf_counter()
        self.epoch_start_step = cb_params.cur_step_num
        if self.on_terminal and not cb_params.dataset_sink_mode:
            self.bar = bar(total=cb_params.batch_num, unit="step",
                           desc=f"epoch {cb_params.cur_epoch_num}/{self.epochs}",
                           bar_format="{desc} |{bar}| {n_fmt}/{total_fmt} {postfix}")

    def on_train_step_end(self, run_context):
        cb_params = run_context.original_args()
        if cb_params.dataset_sink_mode:
            return
        now, before = time.perf_counter(), self.last
        self.last = now
        if not self.has_compiled:
            self.has_compiled = True
            return
        self.steps += 1
        self.seconds += now - before
        step = cb_params.cur_step_num - self.epoch_start_step
        per_step = self.seconds / self.steps
        left = (self.epochs - cb_params.cur_epoch_num + 1) * cb_params.batch_num - step
        if now - self.shown < (BAR_INTERVAL if self.on_terminal else LINE_INTERVAL):
            return
        self.shown = now
        check_finite(self.totals, cb_params.cur_epoch_num, step)
        text = (f"loss {last_loss(cb_params):.3f}, {self.images_per_step / per_step:.0f} images/s, "
                f"{tqdm.format_interval(left * per_step)} left")
        if self.bar is not None:
            self.bar.update(step - self.bar.n)
            self.bar.set_postfix_str(text)
        else:
            logger.info("progress: epoch %d/%d, step %d/%d, %s", cb_params.cur_epoch_num, self.epochs, step,
                        cb_params.batch_num, text)

    def on_train_epoch_end(self, run_context):
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class EpochReport(Callback):
    """Logs an epoch, in the model zoo's two lines and a third one with means, and writes its record.

    An epoch whose weights are not finite is an error, so it is not saved. ``accuracy`` is the record's name for the
    train step's accuracy, and ``rates`` has the learning rate of every step of the whole run.
    """

    def __init__(self, kind: str, accuracy: str, totals: Tensor, weights: Iterable[Parameter], rates: np.ndarray,
                 images_per_step: int, write: Callable[[Dict[str, Any]], None]):
        super().__init__()
        self.kind = kind
        self.accuracy = accuracy
        self.totals = totals
        self.weights = list(weights)
        self.rates = rates
        self.images_per_step = images_per_step
        self.write = write
        self.begun = 0.0

    def on_train_epoch_begin(self, run_context):
        self.begun = time.perf_counter()

    def on_train_epoch_end(self, run_context):
        cb_params = run_context.original_args()
        steps, loss = cb_params.batch_num, last_loss(cb_params)
        seconds = time.perf_counter() - self.begun
        epoch = cb_params.cur_epoch_num
        log_epoch(epoch, steps, loss, seconds)
        totals = check_finite(self.totals, epoch, steps)
        check_weights(self.weights, epoch, steps)
        norm = totals.gradient_norm / totals.updates if totals.updates else None
        norm = norm if norm is not None and math.isfinite(norm) else None  # JSON has no infinity
        # The schedule's rate: after overflows the optimizer is some steps behind it.
        rate, speed = float(self.rates[epoch * steps - 1]), round(steps * self.images_per_step / seconds, 1)
        left = (len(self.rates) // steps - epoch) * seconds
        logger.info("epoch %d: mean loss %.4f, %s %.2f %%, gradient norm %s, learning rate %.3g, %.0f images/s%s",
                    epoch, totals.loss / steps, self.accuracy.replace("_", " "), 100 * totals.accuracy / steps,
                    "not finite" if norm is None else f"{norm:.4g}", rate, speed,
                    f", {tqdm.format_interval(left)} left" if left else "")
        self.write({"kind": self.kind, "epoch": epoch, "loss": totals.loss / steps,
                    self.accuracy: totals.accuracy / steps, "last_loss": float(loss), "gradient_norm": norm,
                    "learning_rate": rate, "seconds": round(seconds, 3), "images_per_second": speed})


class SaveCheckpoint(Callback):
    """Saves after every ``every`` epochs and after the last one; keeps the others in case of an interruption."""

    def __init__(self, save: Saver, every: int, epochs: int):
        super().__init__()
        self.save = save
        self.every = every
        self.epochs = epochs

    def on_train_epoch_end(self, run_context):
        epoch = run_context.original_args().cur_epoch_num
        if epoch % self.every == 0 or epoch == self.epochs:
            self.save(epoch)
        else:
            self.save.hold(epoch)


class OverflowReport(Callback):
    """Logs in how many steps of an epoch the gradients overflowed, from the optimizer's count of ``updates`` (1,)."""

    def __init__(self, updates: Tensor, scale: Tensor):
        super().__init__()
        self.updates = updates
        self.scale = scale
        self.done = 0

    def on_train_epoch_begin(self, run_context):
        self.done = int(self.updates.asnumpy()[0])

    def on_train_epoch_end(self, run_context):
        cb_params = run_context.original_args()
        steps, scale = cb_params.batch_num, float(self.scale.asnumpy())
        epoch = cb_params.cur_epoch_num
        overflows = steps - (int(self.updates.asnumpy()[0]) - self.done)
        if is_dry_run():
            return  # neither count nor scale was kept
        if overflows == steps and scale <= 1:
            raise DivergedError(f"the gradients of every step of epoch {epoch} overflowed with a loss scale of 1: "
                                "training has diverged; begin again with a lower --learning_rate or --amp_level O0")
        if overflows:
            logger.info("overflow in %d of the %d steps of epoch %d: no update there; loss scale %g from here on",
                        overflows, steps, epoch, scale)
