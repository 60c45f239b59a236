"""The commands of ``mlp-sweeps`` in the groups of its help, each with an example."""

from collections.abc import Mapping

GROUPS: Mapping[str, Mapping[str, str]] = {
    "Look at runs": {
        "ls": "mlp-sweeps ls activ=relu 'lr<=0.01' --sort -test_acc",
        "sweeps": "mlp-sweeps sweeps",
        "show": "mlp-sweeps show relu-ce-360-b89f",
        "diff": "mlp-sweeps diff relu-ce-360-b89f gelu-ce-360-0d12",
        "watch": "mlp-sweeps watch --sweep lr",
        "serve": "mlp-sweeps serve",
    },
    "Compare them": {
        "tables": "mlp-sweeps tables --rows activ --cols lr --values test_acc --epochs 5",
        "curves": "mlp-sweeps curves --metric valid_loss --by lr activ=relu",
        "heatmap": "mlp-sweeps heatmap --x lr --y wd --value test_acc",
        "importance": "mlp-sweeps importance --metric test_acc",
        "report": "mlp-sweeps report",
    },
    "Study a question": {
        "check": "mlp-sweeps check study=report",
        "train": "mlp-sweeps train study=report epochs=100 --seeds 3",
        "timing": "mlp-sweeps timing study=report",
        "claims": "mlp-sweeps claims study=report --brief",
        "figures": "mlp-sweeps figures study=report --only fig5,fig6",
        "fidelity": "mlp-sweeps fidelity study=report",
    },
    "Look inside networks": {
        "gradients": "mlp-sweeps gradients model=mlp2",
        "weights": "mlp-sweeps weights relu-ce-360-b89f --units 25",
        "landscape": "mlp-sweeps landscape relu-ce-360-b89f gelu-ce-360-0d12",
        "mistakes": "mlp-sweeps mistakes relu-ce-360-b89f",
    },
    "Work on planned sweeps": {
        "work": "mlp-sweeps work lr --workers 4 --max-time 55m",
        "stop": "mlp-sweeps stop lr",
    },
    "Keep and tidy up": {
        "tag": "mlp-sweeps tag relu-ce-360-b89f good",
        "untag": "mlp-sweeps untag relu-ce-360-b89f good",
        "note": "mlp-sweeps note relu-ce-360-b89f 'the baseline'",
        "prune": "mlp-sweeps prune --keep best:3 --dry-run",
        "rm": "mlp-sweeps rm state=failed --dry-run",
    },
    "Take elsewhere": {
        "collect": "mlp-sweeps collect",
        "export": "mlp-sweeps export --to tensorboard tags=good",
    },
}
_MORE = "Further commands"


def example(command: str) -> str | None:
    """An example of a command; None for another package's."""
    return next((examples[command] for examples in GROUPS.values() if command in examples), None)


def text(summaries: Mapping[str, str]) -> str:
    """The commands, a line for each, in their groups; those without a group come last."""
    grouped = {title: [name for name in examples if name in summaries] for title, examples in GROUPS.items()}
    known = {name for names in grouped.values() for name in names}
    grouped[_MORE] = [name for name in summaries if name not in known]
    width = max(map(len, summaries))
    blocks = [
        "\n".join([title, *(f"  {name:<{width}}  {summaries[name]}" for name in names)])
        for title, names in grouped.items()
        if names
    ]
    return "\n\n".join([*blocks, "mlp-sweeps COMMAND --help explains one, with an example."])
