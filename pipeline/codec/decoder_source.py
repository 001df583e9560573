"""The source of a decoder: which field goes to which owner, under which path."""

from __future__ import annotations

from pipeline.codec.limits import Limits
from pipeline.codec.policy import ACTOR, NONE, SUBJECT, TARGET, SealingPolicy
from pipeline.codec.types import Node
from pipeline.codec.value_source import Scope, ValueSource


class DecoderSource(ValueSource):
    """Writes the source of one decoder: ``lines``, and the ``constants`` that they name."""

    def __init__(self, policy: SealingPolicy, limits: Limits) -> None:
        super().__init__(limits)
        self.lines: list[str] = []
        self._policy = policy

    def event(self, root: Node) -> None:
        """Write ``decode(b, p)`` of an event's record."""
        scope = Scope(pattern="", paths=None, party=None)
        scope.put("clear = {}")
        scope.put("actor = {}")
        scope.put("groups = {'actor': actor}")
        self._record(scope, root)
        scope.put("if p != len(b): finish(b, p)")
        scope.put("return clear, groups")
        self.lines += ["def decode(b, p):", *scope.lines]

    def _record(self, scope: Scope, node: Node) -> None:
        for name, child, declared in node.fields:
            outer_prefix, outer_pattern = scope.prefix, scope.pattern
            scope.prefix = f"{outer_prefix}.{name}" if outer_prefix else name
            scope.pattern = f"{outer_pattern}.{name}" if outer_pattern else name
            self._field(scope, child, declared)
            scope.prefix, scope.pattern = outer_prefix, outer_pattern

    def _field(self, scope: Scope, node: Node, declared: object) -> None:
        if node.kind == "null":
            return
        if self._is_null_or_text(node):
            self._null_or_text(scope, node.items[1], self._place(scope, "scalar", declared))
        elif node.kind == "union":
            self._branches(scope, node, lambda branch: self._field(scope, branch, declared))
        elif node.kind == "record":
            self._nested(scope, node)
        elif node.kind == "array" and node.items[0].kind == "record":
            self._array_of_records(scope, node)
        else:
            self._leaf(scope, node, declared)

    def _nested(self, scope: Scope, node: Node) -> None:
        """A record inside a record; a party other than the actor gets a group of its own."""
        outer = scope.party
        if scope.pattern != ACTOR and self._policy.is_party(scope.pattern, node.names):
            scope.party = self._name("party")
            scope.put(f"{scope.party} = groups[{self._path(scope)}] = {{}}")
        self._record(scope, node)
        scope.party = outer

    def _array_of_records(self, scope: Scope, node: Node) -> None:
        """Elements go through a function of their own, with their paths looked up by prefix."""
        element = node.items[0]
        read, table, counter = self._name("read"), self._name("PATHS"), self._name("i")
        paths: list[str] = []
        inner = Scope(pattern=f"{scope.pattern}.*", paths=paths, party=None)
        if self._policy.is_party(inner.pattern, element.names):
            inner.party = "party"
            inner.put("party = groups[prefix] = {}")
        self._record(inner, element)
        self.constants[table] = _Paths(tuple(paths))
        self.lines.append(f"def {read}(b, p, clear, actor, groups, prefix):")
        if paths:
            unpacked = "".join(f"t{index}, " for index in range(len(paths)))
            self.lines.append(f"    {unpacked}= {table}[prefix]")
        self.lines += [*inner.lines, "    return p"]
        if scope.paths is None:  # then the elements' prefixes are known now
            prefixes = self._name("PREFIXES")
            most = self._limits.items_at(scope.pattern)
            self.constants[prefixes] = tuple(f"{scope.prefix}.{index}" for index in range(most))
            prefix = f"{prefixes}[{counter}]"
        else:
            prefix = f"{self._path(scope)} + '.' + str({counter})"

        def item() -> None:
            scope.put(f"p = {read}(b, p, clear, actor, groups, {prefix})")
            scope.put(f"{counter} += 1")

        self._blocks(scope, item, before=f"{counter} = 0")

    def _leaf(self, scope: Scope, node: Node, declared: object) -> None:
        kind = node.kind if node.kind in ("array", "map") else "scalar"
        place = self._place(scope, kind, declared)
        if kind == "scalar":
            self._value(scope, node, place)
            return
        # An empty array or map says nothing: it is left out, as a null is.
        value = self._name("v")
        self._value(scope, node, value)
        scope.put(f"if {value}: {place} = {value}")

    def _place(self, scope: Scope, kind: str, declared: object) -> str:
        """Where the value at hand goes: an item of its owner's map."""
        mark = self._policy.mark(scope.pattern, kind, declared)
        return f"{self._home(scope, mark)}[{self._path(scope)}]"

    @staticmethod
    def _home(scope: Scope, mark: str) -> str:
        if mark == NONE:
            return "clear"
        if mark == ACTOR:
            return "actor"
        if mark in (TARGET, SUBJECT) and scope.party is not None:
            return scope.party
        return f"(groups.get({mark!r}) or groups.setdefault({mark!r}, {{}}))"

    def _path(self, scope: Scope) -> str:
        """The expression of the path at hand: a literal, or a variable of the element's paths."""
        if scope.paths is None:
            return repr(scope.prefix)
        if scope.prefix not in scope.paths:
            scope.paths.append(scope.prefix)
        return f"t{scope.paths.index(scope.prefix)}"


class _Paths(dict[str, tuple[str, ...]]):
    """Full paths of a record's leaves by the record's prefix, made once per array index."""

    def __init__(self, relative: tuple[str, ...]) -> None:
        super().__init__()
        self._relative = relative

    def __missing__(self, prefix: str) -> tuple[str, ...]:
        paths = self[prefix] = tuple(f"{prefix}.{path}" for path in self._relative)
        return paths
