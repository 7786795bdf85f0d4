"""What a request of GraphQL may cost: measured on its text, before anything validates or runs it.

Each fragment is measured once, so that no nesting of fragments takes longer than its own text, and the text is short:
a request is measured, and refused, in a time that does not depend on what it asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    IntValueNode,
    Node,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    VariableNode,
    parse,
)

from apbatch.errors import UsageError

#: Characters and tokens of a document, and fields and spreads in it.
CHARACTERS, TOKENS, FIELDS = 20_000, 2000, 300
#: Levels (the introspection of usual clients has 15), aliases and directives of a request, and what it may cost.
LEVELS, ALIASES, DIRECTIVES, COST = 16, 30, 30, 20_000
#: Nodes of a connection: by default, and at most.
FEW, MANY = 50, 1000
#: Fields that give a connection of `first` nodes.
_CONNECTIONS = frozenset({"files", "events", "eventsRead", "sites", "attributes"})
#: What a field costs that asks the catalogue; any other costs 1.
_PRICES = {"files": 20, "file": 20, "events": 20, "eventsRead": 20, "sites": 20, "totalCount": 20, "replicas": 2}
#: How many there are, about, of what is a list without being a connection; the schema's own lists among them.
_LISTS = {"file": 2, "replicas": 2, "types": 25, "fields": 6, "args": 1, "directives": 5, "enumValues": 6,
          "inputFields": 1, "interfaces": 1, "possibleTypes": 1}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measure:
    """What a part of a request comes to.

    Attributes
    ----------
    levels, aliases, directives : int
    cost : int
        Fields, each times the nodes that it may be asked of; those that ask the catalogue count more.
    cost_each : int
        The same of one node of the connection that the part belongs to.
    """

    levels: int = 0
    aliases: int = 0
    directives: int = 0
    cost: int = 0
    cost_each: int = 0

    def beside(self, other: Measure) -> Measure:
        """Return what two parts of one level come to."""
        return Measure(
            max(self.levels, other.levels),
            self.aliases + other.aliases,
            self.directives + other.directives,
            self.cost + other.cost,
            self.cost_each + other.cost_each,
        )


def measured(text: str, variables: Mapping[str, Any], operation: str | None = None) -> Measure:
    """Return what the dearest operation of a document comes to.

    Parameters
    ----------
    text : str
        The document.
    variables : Mapping
        Their values as they were sent.
    operation : str, optional
        Which one is to run, if there are several.

    Raises
    ------
    UsageError
        If the text is no document, or more than is served.
    """
    if len(text) > CHARACTERS:
        raise _too_much("characters", len(text), CHARACTERS)
    try:
        document = parse(text, no_location=True, max_tokens=TOKENS)
        return _Reading(document, variables).check(operation)
    except GraphQLError as error:
        place = error.locations[0] if error.locations else None
        where = "query" if place is None else f"query, line {place.line}, column {place.column}"
        raise UsageError(error.message[:300], where=where) from None
    except RecursionError:
        raise UsageError("the request is nested too deeply", where="query", remedy=f"{LEVELS} levels") from None


def _too_much(what: str, number: int, most: int) -> UsageError:
    size = str(number) if number < 10**12 else "too many"
    return UsageError(f"the request has {what}: {size}; served are {most}", where="query", remedy="ask for less")


class _Reading:
    """A document that is measured."""

    def __init__(self, document: DocumentNode, variables: Mapping[str, Any]) -> None:
        self._operations = [one for one in document.definitions if isinstance(one, OperationDefinitionNode)]
        self._fragments = {
            one.name.value: one for one in document.definitions if isinstance(one, FragmentDefinitionNode)
        }
        self._variables = {**_defaults(self._operations), **variables}
        self._measures: dict[str, Measure | None] = {}
        self._fields = 0

    def check(self, operation_name: str | None) -> Measure:
        """Return the measure of the dearest operation, if all may be served."""
        names = [one.name.value if one.name else None for one in self._operations]
        if (operation_name not in names) if operation_name is not None else len(names) != 1:
            raise UsageError("not the name of one operation of the request", where="operationName")
        whole = Measure()
        for name in self._fragments:  # those, too, that nothing uses: validation reads them
            self._of_fragment(name)
        for operation in self._operations:
            if operation.operation is not OperationType.QUERY:
                raise UsageError("nothing can be changed or followed here", where="query", remedy="ask by a query")
            measure = self._below(operation.selection_set).beside(Measure(directives=len(operation.directives or ())))
            for what, value, most in (
                ("levels", measure.levels, LEVELS),
                ("aliases", measure.aliases, ALIASES),
                ("directives", measure.directives, DIRECTIVES),
                ("cost", measure.cost, COST),
            ):
                if value > most:
                    raise _too_much(what, value, most)
            whole = max(whole, measure, key=lambda one: one.cost)
        return whole

    def _below(self, selections: SelectionSetNode | None) -> Measure:
        total = Measure()
        for one in selections.selections if selections else ():
            self._fields += 1
            if self._fields > FIELDS:
                raise _too_much("fields and fragments", self._fields, FIELDS)
            total = total.beside(Measure(directives=len(one.directives or ())))
            if isinstance(one, FieldNode):
                total = total.beside(self._of_field(one))
            elif isinstance(one, FragmentSpreadNode):
                total = total.beside(self._of_fragment(one.name.value))
            elif isinstance(one, InlineFragmentNode):
                inner = self._below(one.selection_set)
                total = total.beside(replace(inner, levels=inner.levels + 1))
        return total

    def _of_field(self, node: FieldNode) -> Measure:
        inner = self._below(node.selection_set)
        name = node.name.value
        levels, aliases = inner.levels + 1, inner.aliases + (node.alias is not None)
        if name == "nodes":
            return Measure(levels, aliases, inner.directives, 1, inner.cost)
        if name in _CONNECTIONS and node.selection_set is not None:
            below = inner.cost + self._rows(node) * inner.cost_each
        else:
            below = _LISTS.get(name, 1) * inner.cost
        return Measure(levels, aliases, inner.directives, _PRICES.get(name, 1) + below)

    def _of_fragment(self, name: str) -> Measure:
        if name not in self._measures:
            self._measures[name] = None
            fragment = self._fragments.get(name)
            self._measures[name] = self._below(fragment.selection_set) if fragment else Measure()
        measure = self._measures[name]
        if measure is None:
            raise UsageError(f"the fragment '{name[:60]}' contains itself", where="query")
        return measure

    def _rows(self, node: FieldNode) -> int:
        for argument in node.arguments or ():
            if argument.name.value == "first":
                return _rows(argument.value, self._variables)
        return FEW


def _defaults(operations: list[OperationDefinitionNode]) -> dict[str, int]:
    """Return the largest default of each variable that has one."""
    values: dict[str, int] = {}
    for operation in operations:
        for definition in operation.variable_definitions or ():
            if isinstance(definition.default_value, IntValueNode):
                name = definition.variable.name.value
                values[name] = max(values.get(name, 0), _rows(definition.default_value, {}))
    return values


def _rows(value: Node, variables: Mapping[str, Any]) -> int:
    """Return how many nodes an argument asks for; a connection refuses more than `MANY`."""
    number: Any = MANY
    if isinstance(value, IntValueNode):
        number = int(value.value) if len(value.value) < 10 else MANY
    elif isinstance(value, VariableNode):
        number = variables.get(value.name.value, FEW)
    if not isinstance(number, int | float) or not abs(number) < 1e9:
        return MANY
    return min(max(1, int(number)), MANY)
