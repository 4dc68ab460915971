"""The one build step that setup.cfg, where all else is, cannot state: manual pages.

setup.cfg names their sources, docs/*.8.rst, as data files for share/man/man8. What is installed
there is what docutils makes of them, in roff, with the version of the package and no date: the same
sources make the same page on any day. Anything that docutils has to say of a source ends the build.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def manual_page(source: Path, version: str) -> str:
    """The page in roff. Raises docutils' SystemMessage, which names file and line, at a warning."""
    # Not needed, and perhaps not there, where only the metadata is asked for.
    from docutils import nodes
    from docutils.core import publish_doctree, publish_from_doctree
    from docutils.writers import manpage

    class Translator(manpage.Translator):
        """No word is broken: many are to be typed. NAME in capitals by all versions of docutils."""

        def header(self) -> str:
            title, name = super().header().splitlines(keepends=True)[0::2]
            return f".nr HY 0\n{title}.ad l\n.SH NAME\n{name}"

    class Writer(manpage.Writer):
        def __init__(self) -> None:
            super().__init__()
            self.translator_class = Translator

    settings = {
        "_disable_config": True,  # of the host or the user
        "file_insertion_enabled": False,
        "halt_level": 2,
        "input_encoding": "utf-8",
        "output_encoding": "unicode",
        "report_level": 2,
        "warning_stream": False,  # the exception says the same
    }
    page = publish_doctree(
        source.read_text("utf-8"), source_path=str(source), settings_overrides=settings
    )
    (information,) = page.findall(nodes.docinfo)
    information.append(nodes.version("", f"qmailldap {version}"))
    roff: str = publish_from_doctree(page, writer=Writer(), settings_overrides=settings)
    return roff


def build() -> None:
    """Do as setuptools is told, with that step."""
    # Here, as the tests take the pages from this file, and setuptools is nothing they need.
    from setuptools import setup  # isort: skip  # it provides distutils
    from distutils.command.install_data import install_data

    class InstallData(install_data):
        """Installs page.8.rst as page.8."""

        def copy_file(self, infile: str, outfile: str, *arguments: Any, **more: Any) -> Any:
            source = Path(infile)
            if source.suffix != ".rst":
                return super().copy_file(infile, outfile, *arguments, **more)
            page = Path(outfile, source.stem)
            page.write_text(manual_page(source, self.distribution.get_version()), "utf-8")
            return str(page), True

    setup(cmdclass={"install_data": InstallData})


if __name__ == "__main__":
    build()
