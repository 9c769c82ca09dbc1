"""What a user gets from a package index: built, looked into, installed alone, and used.

Run as `python .ci/package.py WORK`, with `build`, `twine`, `mypy` and `pyright` installed, from the
root of a checkout; WORK is an empty folder.
"""

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

TYPED = """
import igr

equation = igr.modified_equation(igr.methods.gradient_descent(), order=2)
text: str = str(equation)
gradient: bool = equation.is_gradient(1)
closed = equation.coefficients[((),)]
"""


def run(*command, **options):
    return subprocess.run([str(c) for c in command], check=True, text=True, **options)


def main(work: Path) -> None:
    """Build, check, install and use."""
    dist = work / "dist"
    published = {**os.environ, "IGR_REPOSITORY": "https://example.org/igr"}
    build = (sys.executable, "-m", "build", "--outdir", dist, ".")
    run(*build, stdout=subprocess.DEVNULL, env=published)
    [wheel], [sdist] = dist.glob("*.whl"), dist.glob("*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)

    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = [name for name in names if name.endswith("METADATA")]
        described = archive.read(metadata).decode()
    assert not re.search(r"\]\((?!https?:)", described), "a link that leads nowhere"
    assert "Project-URL: Repository, https://example.org/igr\n" in described, described[:2000]
    inside = {name.split("/")[0] for name in names}
    assert {n for n in inside if not n.endswith(".dist-info")} == {"igr"}, inside
    assert "igr/py.typed" in names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    with tarfile.open(sdist) as archive:
        sources = archive.getnames()
    for wanted in ("README.md", "CHANGELOG.md", "CITATION.cff", "igr/__init__.py", "tests"):
        assert any(f"/{wanted}" in name for name in sources), wanted

    clean = work / "clean"
    venv.create(clean, with_pip=True)
    python = clean / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel)
    away = {**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, "MYPYPATH": ""}
    shown = run(clean / "bin" / "igr", "--help", cwd=work, env=away, capture_output=True).stdout
    assert "derive" in shown
    derive = (clean / "bin" / "igr", "derive", "gradient_descent", "--order", "1")
    shown = run(*derive, cwd=work, env=away, capture_output=True).stdout
    assert "θ' = -g - h/2 H g + O(h²)" in shown, shown
    loaded = "import igr, sys; print('jax' in sys.modules, igr.__version__)"
    shown = run(python, "-c", loaded, cwd=work, env=away, capture_output=True).stdout
    assert shown.split()[0] == "False", "import igr loads JAX"

    for page in ("modified_loss", "egr_adamw", "layers"):
        text = (Path("docs") / "howto" / f"{page}.md").read_text(encoding="utf-8")
        short = text.split("## In short")[1].split("```python\n")[1].split("```")[0]
        shown = run(python, "-c", short, cwd=work, env=away, capture_output=True).stdout
        assert shown, page

    script = work / "typed.py"
    script.write_text(TYPED)
    run(sys.executable, "-m", "mypy", "--strict", "--python-executable", python, script,
        cwd=work, env=away)  # fmt: skip
    run(sys.executable, "-m", "pyright", "--pythonpath", python, script, cwd=work, env=away)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
