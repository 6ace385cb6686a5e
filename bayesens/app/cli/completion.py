"""Scripts that complete commands, options and their values in a shell, made from the commands themselves.

They hold every word, so that the Tab key starts no Python. Where a path or free text is wanted, the shell completes files.
"""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

__all__ = ["SHELLS", "completion_script"]

SHELLS = ("bash", "zsh", "fish")


def completion_script(commands: Any, shell: str, *, program: str = "bayesens") -> str:
    """Write the completion of a group of commands, as ``typer.main.get_command`` makes it, for bash, zsh or fish.

    Examples
    --------
    >>> import typer
    >>> app = typer.Typer(add_completion=False)
    >>> for name in ("go", "stay"):
    ...     _ = app.command(name)(lambda far: None)
    >>> print(completion_script(typer.main.get_command(app), "fish", program="tool"))
    complete -c tool -f -n __fish_use_subcommand -a go
    complete -c tool -f -n __fish_use_subcommand -a stay
    """
    found = {name: _options(command) for name, command in commands.commands.items() if not command.hidden}
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](program, found)


def _options(command: Any) -> dict[str, tuple[bool, list[str]]]:
    """Long options of a command: whether a value follows, and which values there are."""
    out: dict[str, tuple[bool, list[str]]] = {"--help": (False, [])}
    for param in command.params:
        values = _values(param)
        if param.param_type_name == "argument":
            out[""] = (True, values)  # what stands alone; files unless there are values
            continue
        for name in [*param.opts, *param.secondary_opts]:
            if name.startswith("--"):
                out[name] = (not param.is_flag, values)
    return out


def _values(param: Any) -> list[str]:
    """The words that a parameter is one of, if it is: by the types of click, or by the annotation that typer keeps."""
    if choices := getattr(getattr(param, "type", None), "choices", ()):
        return [str(value) for value in choices]
    kinds = [getattr(getattr(param, "type_descriptor", None), "annotation", None)]
    while kinds:
        kind = kinds.pop()
        if get_origin(kind) is Literal:
            return [str(value) for value in get_args(kind)]
        kinds += [one for one in get_args(kind) if get_origin(one) is not None]
    return []


def _bash(program: str, found: dict[str, dict[str, tuple[bool, list[str]]]]) -> str:
    lines = [f"# bash: bayesens completion bash > ~/.{program}-completion; then source that file in ~/.bashrc",
             f"_{program}() {{", '  local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"',
             '  local command="" each words',
             '  for each in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do case "$each" in -*) ;; *) command="$each"; break;; esac; done',
             '  case "$command $before" in']  # fmt: skip
    for name, options in found.items():
        for option, (takes, values) in options.items():
            if option and takes:
                words = (
                    f'COMPREPLY=($(compgen -W "{" ".join(values)}" -- "$word")); return'
                    if values
                    else "COMPREPLY=(); return"
                )
                lines.append(f'    "{name} {option}") {words};;')
    lines += ["  esac", '  case "$command" in']
    for name, options in found.items():
        words = " ".join([*(option for option in options if option), *options.get("", (True, []))[1]])
        lines.append(f'    {name}) words="{words}";;')
    lines += [f'    *) words="{" ".join(found)} --help --version --debug --quiet";;', "  esac",
              '  COMPREPLY=($(compgen -W "$words" -- "$word"))', "}", f"complete -o default -F _{program} {program}"]  # fmt: skip
    return "\n".join(lines)


def _zsh(program: str, found: dict[str, dict[str, tuple[bool, list[str]]]]) -> str:
    """The same, by the completion of bash that zsh knows."""
    head = (
        f"# zsh: bayesens completion zsh > ~/.{program}-completion; then source that file in ~/.zshrc, after compinit"
    )
    return "\n".join([head, "autoload -U +X bashcompinit && bashcompinit", *_bash(program, found).splitlines()[1:]])


def _fish(program: str, found: dict[str, dict[str, tuple[bool, list[str]]]]) -> str:
    lines = [f"complete -c {program} -f -n __fish_use_subcommand -a {name}" for name in found]
    for name, options in found.items():
        seen = f"complete -c {program} -n '__fish_seen_subcommand_from {name}'"
        for option, (takes, values) in options.items():
            words = f" -x -a '{' '.join(values)}'" if values else " -r" if takes else ""
            if option and option != "--help":
                lines.append(f"{seen} -l {option.removeprefix('--')}{words}")
            elif not option and values:
                lines.append(f"{seen} -f -a '{' '.join(values)}'")
    return "\n".join(lines)
