"""A plan as aligned text for the terminal."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from advisor.forecast import clock

if TYPE_CHECKING:
    from advisor.planning import Plan


def print_plan(plan: "Plan", console: Console) -> None:
    """Model, task, what is done, what is kept where, and the forecast by stage."""
    console.print(f"[bold]Plan of advisor {plan.verb}[/bold]: nothing has been run.\n", highlight=False)
    model, task = plan.model, plan.task
    rows = [("Model", f"{model['name']}: {model['n_layers']} layers, {model['parameters']:,} parameters")]
    if model["to_be_fetched"]:
        rows.append(("", "its weights are fetched first; that time is not in the forecast"))
    if task:
        prompts = f"{task['train_prompts']} training and {task['held_out_prompts']} held-out prompts"
        rows.append(("Task", f"{task['name']}: {prompts}, reward {task['reward']}"))
    rows += [("Does" if i == 0 else "", line) for i, line in enumerate(plan.does)]
    if plan.completions:
        rows.append(("Cost", f"up to {plan.completions:,} sampled completions"))
    if plan.memory_bytes is not None:
        rows.append(("Memory", f"about {plan.memory_bytes / 2**30:.2g} GiB beside the process itself"))
    if plan.folder is None:
        alone = "in the recommendation's folder" if plan.verb == "verify" else "on the terminal alone"
        kept = "in a folder of their own in advisor-runs" if model["to_be_fetched"] else alone
    else:
        kept = str(plan.folder)
    rows.append(("Results", kept))
    if plan.finished:
        rows.append(("", f"where {plan.finished} finished measurements are kept: they are not made again"))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in rows:
        grid.add_row(name, escape(text))
    console.print(grid, highlight=False)
    console.print()
    times = Table(box=None, pad_edge=False, header_style="bold")
    times.add_column("stage")
    times.add_column("about", justify="right")
    for stage, seconds in plan.seconds.items():
        times.add_row(stage, clock(seconds))
    times.add_row("all", clock(plan.total), style="bold")
    console.print(times)
