"""The networks of the references in PyTorch: what tests, benchmarks and ``--verify`` compare with.

Written from the published descriptions on top of torchvision, timm and FrEIA. The package
`flowad_jax` never imports from here. Importing these modules needs the `peers` extra, except for
`peers.encoders`, which imports what it needs when it is called.
"""
