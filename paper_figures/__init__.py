"""The figures and tables of the papers, regenerated: `python -m paper_figures`.

Each picture comes with the numbers it draws and with the paper's claims, checked on those numbers.
"""
