"""`jangkau message …`: what messages say, and what is understood of the answers."""

import typer

from ops.cli_preview import preview

app = typer.Typer(
    no_args_is_help=True,
    help="What messages say.\n\nExample: jangkau message preview offer --lang id",
)
app.command()(preview)
