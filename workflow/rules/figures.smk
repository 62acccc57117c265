# Needs: tables only.
# Leaves: the 21 figures, each as PDF, PNG and the plotted numbers; rules fig01 to fig21.


def figure_inputs(number):
    """Named inputs of a figure: for each kind of table, the files of the runs or datasets that it selects."""
    files = {
        "ipr": "ipr.csv",
        "history": "history.csv",
        "alignment": "alignment.csv",
        "displacement": "displacement.csv",
    }
    files["final_eigenvector"] = "final_eigenvector.safetensors"
    tables = {
        "baseline": f"{RESULTS}/baseline/{{}}.csv",
        "interpolation": f"{RESULTS}/interpolation/{{}}.csv",
        "solutions": f"{RESULTS}/interpolation/{{}}.solutions.csv",
    }
    inputs = {}
    for kind, selections in FIGURES[number]["inputs"].items():
        if kind in files:
            runs = dict.fromkeys(run for selection in selections for run in EXPERIMENT.select(**selection))
            inputs[kind] = run_files(files[kind], runs)
        else:
            names = dict.fromkeys(name for selection in selections for name in EXPERIMENT.datasets(**selection))
            inputs[kind] = [tables[kind].format(name) for name in names]
    return inputs


for number in FIGURES:

    rule:
        name:
            f"fig{number:02d}"
        input:
            **figure_inputs(number),
            modules=library(f"fig{number:02d}"),
        output:
            pdf=f"{RESULTS}/figures/fig{number:02d}.pdf",
            png=report(
                f"{RESULTS}/figures/fig{number:02d}.png", caption=f"../report/fig{number:02d}.rst", category="Figures"
            ),
            csv=f"{RESULTS}/figures/fig{number:02d}.csv",
        log:
            f"{LOGS}/fig{number:02d}.log",
        benchmark:
            f"{BENCHMARKS}/fig{number:02d}.tsv"
        conda:
            "../../envs/analysis.yaml"
        threads: 1
        resources:
            mem_mb=1500,
            runtime=20,
        params:
            layout=EXPERIMENT.layout(),
        script:
            f"../scripts/fig{number:02d}.py"
