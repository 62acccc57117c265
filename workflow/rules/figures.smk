# Reads: tables only.
# Writes: the 21 figures, each as PDF, PNG and the plotted numbers; rules fig01 to fig21.


for number in FIGURES:

    rule:
        name:
            f"fig{number:02d}"
        input:
            **figure_inputs(number),
            modules=library("draw_figure", drawn_by(number)),
        output:
            pdf=f"{RESULTS}/figures/fig{number:02d}.pdf",
            png=report(
                f"{RESULTS}/figures/fig{number:02d}.png",
                caption=f"../report/fig{number:02d}.rst",
                category=part_of(number),
                labels=figure_labels(number),
            ),
            csv=f"{RESULTS}/figures/fig{number:02d}.csv",
        log:
            f"{LOGS}/fig{number:02d}.log",
        conda:
            "../../envs/analysis.yaml"
        threads: 1
        resources:
            mem_mb=1500,
            runtime=20,
        params:
            layout=EXPERIMENT.layout(),
            figure=drawing(number, EXPERIMENT.settings, missing(number)),
        script:
            "../scripts/draw_figure.py"
