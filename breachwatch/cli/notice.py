"""`breachwatch notice`."""

from __future__ import annotations

from pathlib import Path

import click

from breachwatch.cli.output import print_json, safe

AS_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


@click.group()
def notice() -> None:
    """Campaigns and deliveries, bytes as sent."""


@notice.command("list")
@click.option("--incident", help="Only campaigns of this incident.")
@AS_JSON
@click.pass_obj
def list_campaigns(config: Path | None, incident: str | None, as_json: bool) -> None:
    """Every campaign: who is told, how far it is."""
    from breachwatch.app.campaigns import CampaignDesk, campaign_object
    from breachwatch.config.settings import load_settings

    desk = CampaignDesk.open(load_settings(config))
    try:
        for view in desk.every(incident):
            if as_json:
                print_json(campaign_object(view))
                continue
            found = view.campaign
            counts = ", ".join(f"{number} {state}" for state, number in sorted(view.deliveries.items()))
            click.echo(f"{found.id}  {found.incident_id:<16} {found.kind:<10} {found.state:<18} {counts}")
    finally:
        desk.close()


@notice.command()
@click.argument("campaign")
@AS_JSON
@click.pass_obj
def show(config: Path | None, campaign: str, as_json: bool) -> int:
    """One campaign and whom no channel reached (by commitment, never by contact). Exit code 1 when there are any."""
    from breachwatch.app.campaigns import CampaignDesk, campaign_object
    from breachwatch.config.settings import load_settings

    desk = CampaignDesk.open(load_settings(config))
    try:
        view, unreached = desk.show(campaign)
    finally:
        desk.close()
    if as_json:
        print_json(campaign_object(view))
        for row in unreached:
            print_json({"kind": "undeliverable", "campaign": campaign, "person": row.person_id,
                        "channel": str(row.channel), "code": row.code, "attempts": row.attempts})  # fmt: skip
    else:
        for name, value in campaign_object(view).items():
            click.echo(f"{name:<15} {safe(value)}")
        for row in unreached:
            click.echo(f"not reached     {row.person_id} by {row.channel}: {safe(row.code)} after {row.attempts} tries")
    return 1 if unreached else 0


@notice.command()
@click.argument("campaign")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.pass_obj
def export(config: Path | None, campaign: str, folder: Path) -> int:
    """Write every message as sent; each is compared with the hash in the trail. Exit code 1 when one differs."""
    from breachwatch.app.campaigns import CampaignDesk
    from breachwatch.config.settings import load_settings

    desk = CampaignDesk.open(load_settings(config))
    written = differing = 0
    try:
        for path, is_same in desk.export(campaign, folder):
            written += 1
            if not is_same:
                differing += 1
                click.echo(f"DIFFERS from what was recorded as sent: {path}", err=True)
    finally:
        desk.close()
    click.echo(f"{written} messages written to {folder}, {differing} differ from what was recorded")
    return 1 if differing else 0
