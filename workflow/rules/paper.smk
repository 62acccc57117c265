# Reads: all tables and all figures.
# Writes: the scored claims, the figure set for LaTeX, and the compiled paper.

ALL_TABLES = {
    kind: [] if missing_table(kind) else tables(kind, [selection]) for kind, selection in SCORED_TABLES.items()
}
FIGURE_NAMES = [f"fig{number:02d}" for number in FIGURES]
FIGURE_SET = f"{RESULTS}/figure_set"


rule claims:
    """The paper's claims, scored on all tables, as CSV, page, Markdown and LaTeX."""
    input:
        **ALL_TABLES,
        claims=source("paper/claims.yaml"),
        primary=source("paper/primary_tests.yaml"),
        modules=library("claims"),
    output:
        csv=f"{RESULTS}/claims/claims.csv",
        md=f"{RESULTS}/claims/claims.md",
        html=report(
            f"{RESULTS}/claims/claims.html",
            caption="../report/claims.rst",
            category=CLAIMS_PART,
            labels={"page": "Claims of the paper", "shows": "Verdict of each claim and of its parts"},
        ),
        tex=f"{RESULTS}/claims/claims.tex",
        grades=f"{RESULTS}/claims/grades.csv",
        grades_tex=f"{RESULTS}/claims/grades.tex",
    log:
        f"{LOGS}/claims.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=30,
    params:
        layout=EXPERIMENT.layout(),
        roles=EXPERIMENT.roles(),
        scale=EXPERIMENT.scale(),
    script:
        "../scripts/claims.py"


rule figure_set:
    """All 21 figures, claims and quoted numbers, ready for LaTeX."""
    input:
        figures=expand(f"{RESULTS}/figures/{{name}}.pdf", name=FIGURE_NAMES),
        captions=[source(f"workflow/report/{name}.rst") for name in FIGURE_NAMES],
        claims_csv=rules.claims.output.csv,
        claims_tex=rules.claims.output.tex,
        grades=rules.claims.output.grades,
        grades_tex=rules.claims.output.grades_tex,
        history=ALL_TABLES["history"],
        ipr=ALL_TABLES["ipr"],
        baseline=ALL_TABLES["baseline"],
        # For later questions: without them the big arrays would go before these tables are made.
        kept=[path for kind in KEPT_TABLES for path in tables(kind, [{"variants": "all"}])],
        modules=library("figure_set"),
    output:
        pdfs=expand(f"{FIGURE_SET}/{{name}}.pdf", name=FIGURE_NAMES),
        figures_tex=f"{FIGURE_SET}/figures.tex",
        numbers_tex=f"{FIGURE_SET}/numbers.tex",
        claims_tex=f"{FIGURE_SET}/claims.tex",
        grades_tex=f"{FIGURE_SET}/grades.tex",
        manifest=report(
            f"{FIGURE_SET}/manifest.json",
            caption="../report/manifest.rst",
            category=PROVENANCE_PART,
            labels={"file": "manifest.json", "shows": "Configuration, versions, device, commit, checksums"},
        ),
    log:
        f"{LOGS}/figure_set.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=20,
    params:
        layout=EXPERIMENT.layout(),
        roles=rules.claims.params.roles,
        config=EXPERIMENT.recorded(),
        scratch=SCRATCH,
    script:
        "../scripts/figure_set.py"


rule paper:
    """The PDF that shows them all; needs latexmk."""
    input:
        main=source("paper/main.tex"),
        references=source("paper/refs.bib"),
        figure_set=rules.figure_set.output,
        # S4 is drawn from the main runs; the text does without those that wait for runs of the supplement.
        supplement=[f"{RESULTS}/figures/figS4.pdf", *drawn_already("figS1")],
        modules=library("paper"),
    output:
        pdf=f"{RESULTS}/paper.pdf",
    log:
        f"{LOGS}/paper.log",
    conda:
        "../../envs/latex.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=20,
    params:
        build=f"paper/generated/{EXPERIMENT.config['name']}",
    script:
        "../scripts/paper.py"
