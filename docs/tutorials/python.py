# %% [markdown]
# # A detector from Python
#
# From thirty photographs of good parts to a decision about a new one. The "photographs" are tiles
# of a picture of bricks that comes with scikit-image, so that nothing is downloaded. With your own
# ones `images` is their folder: `flowad_jax.fit("photographs")`.
#
# This page is a notebook in Jupytext's percent format, `docs/tutorials/python.py`: JupyterLab with
# Jupytext and VS Code open it.

# %%
import flowad_jax
from flowad_jax.data import sources

bricks = sources.build("textures", "", "brick", "train", train_images=30)
images = [bricks[index].image for index in range(len(bricks))]

# %% [markdown]
# ## Train
#
# Images may as well be paths, PIL images, or arrays of `uint16` or of floats from 0 to 1; grey, RGB
# or RGBA. What `fit` is not told comes from the short recipe of the method. All keys of the
# [config](../configuration.md) are keyword arguments: `epochs=8` is `train.epochs`; where several
# keys end with the same word it is written in full, `train__batch_size=8`.
#
# `workdir` keeps the detector and its report. The same call goes on where it was stopped; without
# `workdir` the run goes with the detector.

# %%
detector = flowad_jax.fit(
    images, image_size=128, epochs=8, holdout=0.3, false_alarm_rate=0.1, workdir="bricks"
)
detector

# %% [markdown]
# Nine of the thirty images were held out, so that no threshold can promise fewer false alarms than
# one in ten. `meaning` says what holds, [Promises](../promises.md) why. `calibration="cross"` lets
# all thirty count, with several detectors that each hold out a part.

# %%
detector.thresholds

# %% [markdown]
# ## Decide
#
# One image gives one prediction, a list gives a list, and an iterator gives an iterator that never
# holds more than a batch. A notebook shows a prediction as its overlay.

# %%
test = sources.build("textures", "", "brick", "test", good_images=8, images_per_kind=2)
records = [test[index] for index in range(len(test))]
prediction = detector.predict(records[-1].image)
prediction

# %%
prediction.score, prediction.p_value, prediction.anomalous, prediction.regions[:1]

# %%
prediction.overlay().save("overlay.png")
flagged = [found.anomalous for found in detector.predict(record.image for record in records)]
f"{sum(flagged)} of {len(records)} images are anomalous"

# %% [markdown]
# ## Measure
#
# With labels, and with masks if there are any:

# %%
detector.evaluate(
    [record.image for record in records],
    labels=[record.kind for record in records],
    masks=[record.mask for record in records],
)

# %% [markdown]
# ## Keep
#
# The saved folder holds what is needed to judge images, without those of the training. A rate that
# nine images cannot promise is an estimate, and is called one everywhere.

# %%
detector.save("detector")
flowad_jax.load("detector", false_alarm_rate=0.05)
