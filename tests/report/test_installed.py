"""The wheel has the files of the page."""

from configparser import ConfigParser
from pathlib import Path

from flowad_jax.report import html_page


def test_files_of_the_page_are_installed():
    setup = ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg")
    patterns = setup["options.package_data"]["flowad_jax.report"].split()
    folder = Path(html_page.__file__).parent
    installed = {path for pattern in patterns for path in folder.glob(pattern)}
    assert set((folder / "_report").iterdir()) <= installed
