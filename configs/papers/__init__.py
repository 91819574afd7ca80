"""The published settings, one recipe per system, data set and encoder: {system}_{data}_{encoder}.

Each says what was published and by whom; `published.json` has the same figures by category. They
are the experiments as the authors' programs ran them, faults included; the same with the faults
mended lie one folder above, as {system}_{data}. All normal training images train, so
there are no held-out ones, and no thresholds. Where a program changed after its paper, the recipe
that ends in `_later` is the later one.

docs/deviations.md lists what differs all the same, with its size. In all recipes:

- The headline is the last epoch. The best epoch on the test set is the column `oracle`, one epoch
  for all metrics (by image AUROC); authors often take the best one of each metric.
- AUPRO up to 0.30 is exact. CFLOW-AD's and MSFlow's code steps through 1000 and 800 thresholds and
  divides by the largest rate of false positives that it meets below 0.30.
- Seeds are ours, and images that are not RGB are converted to it in every category.

Not here: MSFlow on mini-ShanghaiTech (every fifth frame). Its inputs of 256 x 384 pixels are not
square, and images are resized to squares here. A third party's notes of the paper give its pixel
AUROC as 93.0.
"""
