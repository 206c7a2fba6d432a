"""`mpq push`: uploads an exported folder to a Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mpq.cli.console import print_json, print_lines, print_table, say
from mpq.cli.options import Json
from mpq.errors import UsageError
from mpq.records.hub_name import is_repo
from mpq.shown import listed

_ENDING = "-huggingface"
_SHOWN = 6


def command(
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The repository; it is created if needed.")],
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="FOLDER", help="What `mpq export --to huggingface` wrote. [default: the one *-huggingface here]"),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository private; an existing public one is refused.")] = False,
    revision: Annotated[str | None, typer.Option(metavar="BRANCH", help="The branch; it is created if needed. [default: main]")] = None,
    message: Annotated[
        str | None, typer.Option("--message", metavar="TEXT", help="Message of the commit. [default: Upload with mpq]")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be uploaded, and upload nothing.")] = False,
    json: Json = False,
) -> None:
    """Upload an exported folder to a Hugging Face hub, in one commit.

    Only the files that belong to the folder are uploaded. Authentication uses `hf auth login` or HF_TOKEN; mpq does not read the token.

    Example: mpq push org/llama-mpq llama-huggingface --private
    """
    from mpq.integrations.hub_upload import upload, upload_of

    if not is_repo(repo):
        raise UsageError(f"{repo} is not a model of the hub: write ORG/NAME")
    chosen = upload_of(folder or _only_folder())
    facts = {"repo": repo, "folder": str(chosen.folder), "files": list(chosen.files), "left_out": list(chosen.left_out)}
    if chosen.left_out:
        say(f"not uploaded, because they are not part of an exported folder: {listed(chosen.left_out, _SHOWN)}")
    if dry_run:
        if json:
            print_json({**facts, "bytes": chosen.bytes, "dry_run": True})
            return
        print_table(["file", "bytes"], [[name, f"{(chosen.folder / name).stat().st_size:,}"] for name in chosen.files])
        kind = "private " if private else ""
        print_lines([f"dry run: {chosen.bytes:,} bytes would go to the {kind}repository {repo}, branch {revision or 'main'}"])
        return
    say(f"uploading {len(chosen.files)} files, {chosen.bytes:,} bytes, to {repo}")
    done = upload(chosen, repo, private=private, revision=revision, message=message)
    if json:
        print_json({**facts, "bytes": chosen.bytes, "url": done.url, "name": str(done.name), "revision": done.name.revision})
        return
    print_lines([f"{done.url}: {len(chosen.files)} files, {chosen.bytes:,} bytes"])
    say(f"load: import mpq, then from_pretrained('{repo}', revision='{done.name.revision}')")


def _only_folder() -> Path:
    found = sorted(path for path in Path().glob(f"*{_ENDING}") if path.is_dir())
    if len(found) != 1:
        raise UsageError(f"{len(found)} folders here are called *{_ENDING}: name the one to upload, after the repository")
    return found[0]
