"""Ship the start-up file that lets nnU-Net find our trainers; the rest is in pyproject.toml and setup.cfg."""

from distutils.command.install_data import install_data  # provided by setuptools, also on Python 3.12+

from setuptools import setup
from setuptools.command.editable_wheel import editable_wheel


class InstallSiteFiles(install_data):
    """Install ``data_files`` at the root of site-packages instead of ``sys.prefix``."""

    def finalize_options(self):
        super().finalize_options()
        self.install_dir = self.get_finalized_command("install").install_lib


class EditableWithSiteFiles(editable_wheel):
    """Editable wheels skip ``data_files`` because setuptools looks for an attribute of another name."""

    def run(self):
        self.distribution.has_data = self.distribution.has_data_files
        super().run()


setup(
    data_files=[("", ["nnunet_neurino.pth"])],
    cmdclass={"install_data": InstallSiteFiles, "editable_wheel": EditableWithSiteFiles},
)
