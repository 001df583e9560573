"""What the commands do: bring servers up, take them down, disturb them.

Commands that change a stack take turns by a lock in its folder. Each is idempotent:
a second ``up`` finds all running, a second ``down`` finds nothing.
"""

import fcntl
import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Event

from audit_stack import processes
from audit_stack.assemble import assemble, attach
from audit_stack.credentials import write_private
from audit_stack.envfile import write_env_file
from audit_stack.errors import StackError
from audit_stack.layout import Layout, claim_home, remove_folders
from audit_stack.ports import refuse_taken_ports
from audit_stack.progress import say
from audit_stack.ready import wait_ready
from audit_stack.servers.all import SERVERS, choose, find
from audit_stack.servers.base import Server
from audit_stack.settings import PORTS, Settings, cache_directory
from audit_stack.stack import Stack, layout_of, recorded_settings
from audit_stack.supervise import Supervisor, write_config

ALIVE = ("RUNNING", "STARTING", "BACKOFF")
STOP_TIMEOUT_S = 30.0


def up(settings: Settings, only: list[str]) -> None:
    """Start the servers ``only`` (all when empty), ready for clients on return."""
    names = choose(only)
    layout = layout_of(settings)
    supervisor = Supervisor(layout)
    with _turn(layout):
        if supervisor.is_running():
            _refuse_other_settings(settings, recorded_settings(settings))
            if all(_is_alive(supervisor, name) for name in names):
                _start_side_by_side(attach(settings), names, set(), supervisor)
                say(f"already up in {layout.home}")
                return
        _bring_up(settings, names, supervisor)


def start(settings: Settings, name: str) -> None:
    """Start one stopped, killed or never started server; ready on return."""
    find(name)
    layout = layout_of(settings)
    supervisor = _running_supervisor(layout)
    with _turn(layout):
        if _is_alive(supervisor, name):
            say(f"{name} is already up")
            return
        for needed in find(name).after:
            if not _is_alive(supervisor, needed):
                message = f"{name} needs {needed}: start {needed} first"
                raise StackError(message)
        _bring_up(recorded_settings(settings), {name}, supervisor)


def down(settings: Settings) -> None:
    """Stop every server and the supervisor; data and keys stay."""
    layout = layout_of(settings)
    if not layout.marker.exists():
        say(f"there is no stack in {layout.home}")
        return
    supervisor = Supervisor(layout)
    with _turn(layout):
        was_up = supervisor.is_running()
        if was_up:
            for _, pid in supervisor.states().values():
                processes.resume_tree(pid)
            supervisor.shut_down()
        had_strays = _end_strays(layout)
        say("down" if was_up or had_strays else "already down")


def clean(settings: Settings) -> None:
    """Stop everything and delete the stack with its data, keys and logs."""
    down(settings)
    layout = layout_of(settings)
    if layout.marker.exists():
        remove_folders(layout)
        say(f"deleted {layout.home}")


def stop(settings: Settings, name: str) -> None:
    """Stop one server in good order; it stays down until ``start``."""
    find(name)
    layout = layout_of(settings)
    supervisor = _running_supervisor(layout)
    with _turn(layout):
        if not _is_alive(supervisor, name):
            say(f"{name} is already down")
            return
        processes.resume_tree(_pid(supervisor, name))
        supervisor.stop(name)
        say(f"{name} is down")


def kill(settings: Settings, name: str) -> None:
    """End one server with SIGKILL, as a crash would; it stays down until ``start``."""
    find(name)
    layout = layout_of(settings)
    supervisor = _running_supervisor(layout)
    with _turn(layout):
        if not _is_alive(supervisor, name):
            say(f"{name} is already down")
            return
        pid = _pid(supervisor, name)
        # Frozen first: the stop that keeps supervisord from restarting it has no effect.
        processes.pause_tree(pid)
        supervisor.stop(name, wait=False)
        processes.kill_tree(pid)
        _await_state(supervisor, name, "STOPPED")
        say(f"{name} is killed")


def pause(settings: Settings, name: str) -> None:
    """Let one server stand still with its connections open (SIGSTOP)."""
    find(name)
    supervisor = _running_supervisor(layout_of(settings))
    count = processes.pause_tree(_pid_or_refuse(supervisor, name))
    say(f"{name} is paused ({count} processes)")


def resume(settings: Settings, name: str) -> None:
    """Let a paused server go on (SIGCONT)."""
    find(name)
    supervisor = _running_supervisor(layout_of(settings))
    processes.resume_tree(_pid_or_refuse(supervisor, name))
    say(f"{name} goes on")


def _bring_up(settings: Settings, names: set[str], supervisor: Supervisor) -> None:
    configured: dict[str, tuple[str, int]] = {}
    if supervisor.is_running():
        configured = supervisor.states()
    else:
        _end_strays(layout_of(settings))
    idle = {name for name in names if configured.get(name, ("", 0))[0] not in ALIVE}
    refuse_taken_ports(settings, [key for name in idle for key in SERVERS[name].ports])
    stack = assemble(settings, names | set(configured), cache_directory())
    commands = {name: SERVERS[name].command(stack) for name in names | set(configured)}
    write_config(stack.layout, stack.account, commands)
    write_private(stack.layout.record, json.dumps(settings.as_json(), indent=2) + "\n")
    if configured:
        supervisor.load()
    else:
        supervisor.launch()
    _start_side_by_side(stack, names, idle, supervisor)


def _end_strays(layout: Layout) -> bool:
    """End servers that outlived their supervisor: nothing else could stop them."""
    count = processes.end_strays(str(layout.home))
    if count:
        say(f"ended {count} processes that had lost their supervisor")
    return bool(count)


def _start_side_by_side(
    stack: Stack, names: set[str], idle: set[str], supervisor: Supervisor
) -> None:
    """Make all of ``names`` ready, each as soon as those that it needs are; write ``audit.env``.

    Those that are not ``idle`` run already: an earlier start may have been interrupted, so they
    are waited for and provisioned too, and a paused one goes on.

    Raises:
        StackError: Some did not become ready; the others are up.
    """
    running: dict[str, Future[None]] = {}
    cancelled = Event()

    def bring(server: Server) -> None:
        for needed in server.after:
            if needed in running:
                running[needed].result()
        began_at = time.monotonic()
        if server.name in idle:
            server.prepare(stack)
            supervisor.start(server.name)
        else:
            processes.resume_tree(_pid(supervisor, server.name))
        wait_ready(stack, server, supervisor, cancelled)
        server.provision(stack)
        if server.name in idle:
            say(f"{server.title} is ready after {time.monotonic() - began_at:.1f} s")

    with ThreadPoolExecutor(len(SERVERS)) as pool:
        # A server's needs are submitted before it, so that it finds them.
        for server in sorted(map(find, names), key=lambda server: len(server.after)):
            running[server.name] = pool.submit(bring, server)
        try:
            wait(running.values())
        except KeyboardInterrupt:
            cancelled.set()
            raise
    _raise_together([done.exception() for done in running.values()])
    write_env_file(stack)


def _raise_together(errors: list[BaseException | None]) -> None:
    """Raise what went wrong, if anything, as one error; a bug goes before a complaint."""
    complaints = set()
    for error in errors:
        if isinstance(error, StackError):
            complaints.add(str(error))
        elif error is not None:
            raise error
    if complaints:
        hint = "(what did start is still up: see status, or run down)"
        raise StackError("\n".join([*sorted(complaints), hint]))


def _refuse_other_settings(wanted: Settings, recorded: Settings) -> None:
    if wanted == recorded:
        return
    moved = [
        f"{setting.title} at port {recorded.port(setting.key)}, not {wanted.port(setting.key)}"
        for setting in PORTS
        if wanted.port(setting.key) != recorded.port(setting.key)
    ]
    detail = "; ".join(moved) or "other heap sizes, compilers, account or programs"
    message = (
        f"the stack in {wanted.home} is up with other settings ({detail}): "
        "run down first, or set the same ones"
    )
    raise StackError(message)


def _running_supervisor(layout: Layout) -> Supervisor:
    supervisor = Supervisor(layout)
    if not supervisor.is_running():
        message = f"the stack in {layout.home} is not up: run up first"
        raise StackError(message)
    return supervisor


def _is_alive(supervisor: Supervisor, name: str) -> bool:
    return supervisor.states().get(name, ("", 0))[0] in ALIVE


def _pid(supervisor: Supervisor, name: str) -> int:
    return supervisor.states().get(name, ("", 0))[1]


def _pid_or_refuse(supervisor: Supervisor, name: str) -> int:
    pid = _pid(supervisor, name)
    if not pid:
        message = f"{name} is down: start it first"
        raise StackError(message)
    return pid


def _await_state(supervisor: Supervisor, name: str, state: str) -> None:
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while supervisor.states()[name][0] != state and time.monotonic() < deadline:
        time.sleep(0.05)


@contextmanager
def _turn(layout: Layout) -> Iterator[None]:
    """Hold the stack's lock."""
    claim_home(layout)
    with layout.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another command on the same stack")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
