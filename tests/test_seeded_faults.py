"""Tests of the tests: faults put into the compiler on purpose, each of which the ordinary checks
must find.

A fault is a change of one function, record or constant, as a slip of a pen would make it. It counts
as found when a check of `random_checks`, or of `test_gradients_random`, reports a problem within a
bounded number of random graphs, none of which has one without the fault.
"""

import faulthandler
import os
import re
import warnings
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest

from graphc.codegen import accumulators, vectors, writer
from graphc.gates import (
    composite,
    contraction,
    elementwise,
    exponential,
    hyperbolic,
    movement,
)
from graphc.gates.gate import Gate, registry
from graphc.ir.types import f32, f64
from graphc.lower import fuse, loop_text, plan, schedule, statements, tasks
from graphc.passes import rewrite, rules, simplify
from graphc.pipeline import Options
from tests import random_checks, test_gradients_random
from tests.random_checks import index_problem, outcome
from tests.random_graphs import directed, grown, holding

GRAPHS = {"jit": 24, "indices": 24, "gradients": 60}  # in which a fault must show
OTHERS = 240  # for the cheaper checks
FAULTS = []


@dataclass(frozen=True)
class Fault:
    """`put` breaks something through `patch(owner, name, value)`; the check named `found_by` must
    see it.
    """

    name: str
    found_by: str
    put: object
    pair: tuple[str, str] | None = None  # gates that must meet for it to show
    options: Options = Options()


def fault(found_by, pair=None, skip=()):
    def enter(put):
        options = Options(skip=frozenset(skip))
        FAULTS.append(Fault(put.__name__.replace("_", " "), found_by, put, pair, options))
        return put

    return enter


@pytest.fixture
def patch():
    """Set attributes, of frozen records too; all is as before when the test ends."""
    undo = []

    def apply(owner, name, value):
        undo.append((owner, name, getattr(owner, name)))
        object.__setattr__(owner, name, value) if isinstance(owner, Gate) else setattr(
            owner, name, value
        )
        forget()  # what was made while all was well

    yield apply
    for owner, name, value in reversed(undo):
        object.__setattr__(owner, name, value) if isinstance(owner, Gate) else setattr(
            owner, name, value
        )
    forget()


def forget():
    """Empty what remembers bodies and rules."""
    simplify.rules_without.cache_clear()
    for gate in registry().values():
        getattr(gate, "_graphs", {}).clear()


# -- the checks, over graphs made before any fault is in -------------------------------------------


@cache
def case_of(pair, number):
    """Random graph `number`, one that holds a pair of gates if there is one."""
    if pair is not None:
        return holding(*pair, number)
    return grown(number // 2) if number % 2 else directed(0, number * 7 % 100)


@cache
def smooth_cases():
    return tuple(test_gradients_random.smooth(seed) for seed in range(GRAPHS["gradients"]))


def first_problem(fault):
    """What the check says of the first graph in which it sees something."""
    if fault.found_by == "gradients":
        found = (smooth_problem(case, seed) for seed, case in enumerate(smooth_cases()))
    else:
        numbers = range(GRAPHS.get(fault.found_by, OTHERS))
        found = (graph_problem(fault, case_of(fault.pair, number)) for number in numbers)
    return next(filter(None, found), "")


def graph_problem(fault, case):
    if fault.found_by == "indices":
        return index_problem(case)
    return outcome(case, fault.options, checks=(fault.found_by,), restart="plan", quick=True)


def smooth_problem(case, seed):
    try:
        return test_gradients_random.problem(
            case.graph, case.runs[0].args, np.random.default_rng(seed)
        )
    except Exception as error:  # a fault may break anything
        return f"{type(error).__name__}: {error}"


# -- rules -----------------------------------------------------------------------------------------


def with_rule(patch, rule):
    """Add a rule, or put it in place of the one of its name."""
    kept = tuple(r for r in simplify.RULES if r.name != rule.name)
    patch(simplify, "RULES", (rule, *kept))
    simplify.rules_without.cache_clear()


def changed(name, **fields):
    return replace(rules.RULES_BY_NAME[name], **fields)


@fault("simplify", ("constant", "add"))
def x_plus_zero_is_x(patch):
    with_rule(patch, rewrite.Rule("unsound", lambda x: x + 0, lambda x: x, dtype="float"))


@fault("simplify", ("constant", "mul"))
def x_times_zero_is_zero(patch):
    with_rule(
        patch,
        rewrite.Rule("unsound", lambda x: x * 0, lambda x: x.constant(0), dtype="float"),
    )


@fault("simplify", ("sub", "sub"))
def x_minus_x_is_zero(patch):
    with_rule(
        patch,
        rewrite.Rule("unsound", lambda x: x - x, lambda x: x.constant(0), dtype="float"),
    )


@fault("simplify", ("lt", "logical_not"))
def not_less_is_greater_or_equal_on_floats(patch):
    with_rule(patch, changed("not-lt", dtype="any"))


@fault("simplify", ("transpose", "transpose"))
def permutations_compose_the_wrong_way(patch):
    wrong = lambda x, a, b: x.transposed([b[i] for i in a])
    with_rule(patch, changed("transpose-transpose", rhs=wrong))


@fault("simplify", ("slice", "slice"))
def slices_of_slices_forget_a_step(patch):
    def sliced(x, a, s, b, t, out):
        starts = tuple(first + then for first, then in zip(a, b))
        steps = tuple(step * then for step, then in zip(s, t))
        return out.builder.apply("slice", x, starts=starts, steps=steps, shape=out.shape)

    with_rule(patch, changed("slice-slice", rhs=sliced))


@fault("simplify", ("cast", "cast"))
def casts_of_casts_lose_the_first(patch):
    with_rule(patch, changed("cast-cast", where=lambda x: True))


@fault("simplify", ("neg", "square"))
def square_of_minus_x_is_negative(patch):
    with_rule(patch, changed("square-neg", rhs=lambda x: -registry()["square"](x)))


@fault("simplify", ("where", "where"))
def nested_choices_take_the_wrong_arm(patch):
    with_rule(
        patch,
        rewrite.Rule("unsound", lambda p, x, y, z: elementwise.where(p, x, y), lambda p, x, y: y),
    )


@fault("simplify", ("constant", "exp"))
def constants_fold_in_single_precision(patch):
    folded = rewrite.folded

    def wrong(builder, node):
        value = folded(builder, node)
        return value.constant(float(np.float16(value.splat()))) if value.dtype.is_float else value

    patch(rewrite, "folded", wrong)


# -- derivatives -----------------------------------------------------------------------------------


@fault("gradients")
def the_partial_of_tanh_is_off_by_a_thousandth(patch):
    patch(
        hyperbolic.tanh,
        "partials",
        lambda out, x: (hyperbolic.tanh_partial(x) * 1.001,),
    )


@fault("gradients")
def the_partial_of_sigmoid_is_off_by_a_thousandth(patch):
    patch(
        hyperbolic.sigmoid,
        "partials",
        lambda out, x: (hyperbolic.sigmoid_partial(x) * 0.999,),
    )


@fault("gradients")
def the_partial_of_a_divisor_has_the_wrong_sign(patch):
    patch(
        elementwise.div,
        "partials",
        lambda out, x, y: (elementwise.reciprocal(y), out / y),
    )


@fault("gradients")
def the_partial_of_an_exponent_misses_the_logarithm(patch):
    partials = exponential.power.partials
    patch(exponential.power, "partials", lambda out, x, y: (partials(out, x, y)[0], out))


@fault("gradients")
def maximum_gives_all_to_the_first(patch):
    first = lambda out, x, y: (x.constant(1), x.constant(0))
    patch(elementwise.maximum, "partials", first)


@fault("gradients")
def a_choice_gives_the_cotangent_to_the_other_arm(patch):
    where = elementwise.where
    swapped = lambda ct, c, x, y: (
        None,
        where(c, ct.constant(0), ct),
        where(c, ct, ct.constant(0)),
    )
    patch(where, "transposed", swapped)


@fault("gradients")
def the_transpose_of_a_slice_forgets_its_steps(patch):
    def transposed(node, ct):
        steps = tuple(abs(s) for s in node["steps"])
        shape = node.args[0].type.shape
        return [
            ct.builder.apply("place", ct, starts=node["starts"], steps=steps, shape=shape, fill=0)
        ]

    patch(movement.slice_, "transposed", transposed)


@fault("gradients")
def the_transpose_of_concat_always_cuts_at_the_start(patch):
    def transposed(node, ct):
        zero, one = (0,) * node.type.rank, (1,) * node.type.rank
        return [
            ct.builder.apply("slice", ct, starts=zero, steps=one, shape=a.type.shape)
            for a in node.args
        ]

    patch(movement.concat, "transposed", transposed)


@fault("gradients")
def the_transpose_of_a_contraction_is_off_by_a_thousandth(patch):
    right = contraction.Contraction.transpose

    def transpose(self, node, values, ct, linear):
        return [c and c * 1.001 for c in right(self, node, values, ct, linear)]

    patch(contraction.Contraction, "transpose", transpose)


@fault("gradients")
def the_backward_of_softmax_misses_its_sum(patch):
    patch(
        composite.softmax,
        "backward",
        lambda ct, out, x, axis: (elementwise.mul0(ct, out),),
    )


@fault("gradients")
def the_backward_of_logsumexp_is_not_normalised(patch):
    def backward(ct, out, x, axis):
        return (elementwise.mul0(ct.along(axis, x), exponential.exp(x)),)

    patch(composite.logsumexp, "backward", backward)


@fault("gradients")
def the_product_of_the_others_holds_the_element_itself(patch):
    patch(registry()["prod"], "partial", lambda out, x, axis: out)


@fault("gradients")
def ties_of_a_maximum_each_get_everything(patch):
    patch(
        registry()["max"],
        "partial",
        lambda out, x, axis: elementwise.eq(x, out).cast(x.dtype) * 1.001,
    )


@fault("gradients")
def the_body_of_expm1_is_wrong_in_the_seventh_digit(patch):
    body = exponential.expm1.body
    patch(exponential.expm1, "body", lambda x: body(x) * 1.0000001)


@fault("gradients")
def cotangents_of_a_shared_node_overwrite_each_other(patch):
    from graphc.transforms import transpose

    patch(
        transpose,
        "_total",
        lambda parts: parts[-1],
    )


# -- fusion ----------------------------------------------------------------------------------------


@fault("fuse", ("tanh", "slice"))
def loops_are_shared_whatever_the_step(patch):
    def aligned(made, access, depth):
        if (
            access.reshaped
            or made.region is not None
            or made.kind in ("scatter", "memory", "contract")
        ):
            return False
        return depth in made.out_axes and access.map[made.out_axes.index(depth)].axis == depth

    patch(fuse, "_aligned", aligned)


@fault("fuse", ("slice", "slice"), skip=("rules",))
def a_view_of_a_view_forgets_where_it_starts(patch):
    def compose(inner, outer):
        along = movement.Along
        return tuple(
            e
            if e.axis is None
            else along(
                outer[e.axis].axis,
                e.start + outer[e.axis].start,
                e.step * outer[e.axis].step,
            )
            for e in inner
        )

    patch(tasks, "compose", compose)


@fault("fuse", ("input", "place"))
def what_surrounds_a_placed_array_is_not_filled(patch):
    patch(statements.Writer, "_fills", lambda self, group: [])


@fault("fuse")
def sums_in_lanes_are_made_in_rows(patch):
    right = statements.Writer._acc

    def acc(self, task):
        made = right(self, task)
        return replace(made, order="rows") if made.order == "lanes" else made

    patch(statements.Writer, "_acc", acc)


@fault("fuse")
def a_reader_does_not_wait_for_what_it_reads(patch):
    patch(fuse, "_gap", lambda made, reader, task, access, depth: 0)


@fault("fuse", ("slice", "take"))
def a_gather_from_a_slice_forgets_its_step(patch):
    right = tasks._Collector._gathered_axis

    def gathered(self, x, axis, source):
        found = right(self, x, axis, source)
        return found and (found[0], 1)

    patch(tasks._Collector, "_gathered_axis", gathered)


@fault("fuse", ("slice", "contract"))
def a_matrix_product_forgets_where_its_operand_starts(patch):
    right = statements.Writer._operand
    patch(
        statements.Writer,
        "_operand",
        lambda self, access, letters: replace(right(self, access, letters), index=0),
    )


# -- memory ----------------------------------------------------------------------------------------


def _ending_early(lives):
    """Each buffer's life without its last kernel."""
    return {
        name: (first, max(first, (last[0] - 1, last[1]))) for name, (first, last) in lives.items()
    }


@fault("plan")
def a_slot_passes_on_while_its_value_is_still_read(patch):
    right = plan.spans
    patch(plan, "spans", lambda program: _ending_early(right(program)))
    patch(random_checks, "verify_plan", lambda program: None)


@fault("plan")
def the_slot_that_passes_on_early_is_seen_before_anything_runs(patch):
    right = plan.spans

    def early(program):
        lives = right(program)
        return lives if program.arena is not None else _ending_early(lives)

    patch(plan, "spans", early)
    patch(random_checks, "run_program", lambda program, args, sizes: [])


@fault("plan")
def slots_overlap_by_half(patch):
    def layout(slots):
        starts, end = {}, 0
        for i, size in enumerate(slots):
            starts[i] = end
            end = end + (size // 2 // 64 * 64 if isinstance(size, int) else size)
        return starts, end + sum(s for s in slots if isinstance(s, int))

    patch(plan, "_layout", layout)
    patch(random_checks, "verify_plan", lambda program: None)


# -- machine code ----------------------------------------------------------------------------------


def with_text(patch, change):
    right = random_checks.library
    patch(random_checks, "library", lambda code, quick: right(change(code), quick))


@fault("jit")
def the_mask_of_a_last_vector_is_one_lane_short(patch):
    def shorter(match):
        width = int(match.group(1))
        return f"icmp slt <{width} x i64> <" + ", ".join(f"i64 {i + 1}" for i in range(width)) + ">"

    with_text(
        patch,
        lambda code: re.sub(r"icmp slt <(\d+) x i64> <i64 0, i64 1[^>]*>", shorter, code),
    )


@fault("jit")
def the_known_mask_of_a_last_vector_is_one_lane_short(patch):
    right = vectors.VectorLoop._constant_mask
    patch(vectors.VectorLoop, "_constant_mask", lambda self, left: right(self, left - 1))


@fault("jit")
def leaves_of_a_tree_hold_two(patch):
    patch(accumulators, "LEAF", 2)


@fault("jit")
def lanes_are_added_to_their_neighbours(patch):
    def horizontal(fn, monoid, dtype, value, width):
        lane = lambda i: fn.do(
            f"extractelement <{width} x {accumulators.REGISTER[dtype.name]}> {value}, i64 {i}"
        )
        parts = [lane(i) for i in range(width)]
        while len(parts) > 1:
            parts = [
                accumulators.combine(fn, monoid, dtype, a, b, 1)
                for a, b in zip(parts[::2], parts[1::2])
            ]
        return parts[0]

    patch(accumulators, "horizontal", horizontal)


@fault("jit")
def a_counter_forgets_its_smallest_leaf(patch):
    right = accumulators.collapse

    def collapse(fn, levels, t, *rest, **named):
        return right(fn, levels, fn.do(f"and i64 {t}, -2"), *rest, **named)

    patch(accumulators, "collapse", collapse)


@fault("jit", ("contract", "contract"))
def products_are_rounded_before_they_are_added(patch):
    def fma(fn, dtype, a, b, c, width):
        ty = accumulators.register(dtype, width)
        product = fn.do(f"fmul {ty} {a}, {b}")
        return fn.do(f"fadd {ty} {product}, {c}")

    patch(accumulators, "fma", fma)


@fault("jit", ("constant", "sum"))
def a_sum_begins_at_plus_zero(patch):
    right = accumulators.identity
    plus = {f64: "0x0000000000000000", f32: "0x0000000000000000"}

    def identity(monoid, dtype, width=1):
        if monoid not in ("sum", "fma") or dtype not in plus:
            return right(monoid, dtype, width)
        return "zeroinitializer" if width > 1 else plus[dtype]

    patch(accumulators, "identity", identity)


@fault("jit", ("input", "take"))
def negative_indices_do_not_wrap(patch):
    right = writer.KernelWriter.checked_index

    def unwrapped(self, value, size, width, mask):
        made = right(self, value, size, width, mask)
        zero = "zeroinitializer" if width > 1 else "0"
        ty, ones = writer.vector("i64", width), writer.vector("i1", width)
        negative = self.fn.do(f"icmp slt {ty} {value}, {zero}")
        return self.fn.do(f"select {ones} {negative}, {ty} {zero}, {ty} {made}")

    patch(writer.KernelWriter, "checked_index", unwrapped)


@fault("indices", ("input", "take"))
def a_wrong_index_is_not_reported(patch):
    def quiet(self, value, wrong, size, width):
        self.fn.say("ret i32 0")

    patch(writer.KernelWriter, "_report", quiet)


@fault("jit", ("lt", "where"))
def a_comparison_with_nan_holds(patch):
    with_text(patch, lambda code: code.replace("fcmp olt", "fcmp ult"))


@fault("jit", ("scatter_add", "add"))
def additions_at_one_place_are_made_at_once(patch):
    patch(schedule, "_strided", lambda scatter, var: True)


@fault("jit", ("input", "cast"))
def casts_to_integers_do_not_truncate(patch):
    def rounded(code):
        pattern = r"(%\w+) = fptosi (<[^>]*>|\w+) (%\w+) to"
        up = lambda m: (
            f"{m.group(1)}.up = fadd {m.group(2)} {m.group(3)}, {m.group(3)}\n"
            f"  {m.group(1)} = fptosi {m.group(2)} {m.group(1)}.up to"
        )
        return re.sub(pattern, up, code)

    with_text(patch, rounded)


# -- text ------------------------------------------------------------------------------------------


@fault("text", ("constant", "mul"))
def minus_zero_parses_as_zero(patch):
    right = loop_text.parse_bits
    patch(loop_text, "parse_bits", lambda t, dtype: right("0.0" if t == "-0.0" else t, dtype))


@fault("text")
def accumulators_lose_their_order_in_print(patch):
    right = loop_text._acc_text
    patch(loop_text, "_acc_text", lambda acc: right(replace(acc, order="any")))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.name)
def test_a_fault_is_found(fault, patch):
    """The check that is there for it reports a problem."""
    smooth_cases()  # made while all is well, since gates themselves may be broken
    fault.put(patch)
    look = first_problem if fault.found_by != "jit" else problem_apart
    assert look(fault), f"nobody noticed that {fault.name}"


def problem_apart(fault):
    """The same in a process of its own: broken machine code may write where it should not."""
    reader, writer_end = os.pipe()
    with warnings.catch_warnings():
        for kind in (DeprecationWarning, RuntimeWarning):  # of forks beside threads
            warnings.simplefilter("ignore", kind)
        child = os.fork()
    if child == 0:
        faulthandler.disable()  # a fault is what is looked for
        try:
            os.write(writer_end, first_problem(fault).encode()[:4000])
        finally:
            os._exit(0)
    os.close(writer_end)
    with os.fdopen(reader, "rb") as pipe:
        found = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return found or (f"the process ended by signal {status}" if os.WIFSIGNALED(status) else "")


def test_there_are_enough_faults():
    assert len(FAULTS) >= 30
    assert {f.found_by for f in FAULTS} == {
        "simplify",
        "fuse",
        "plan",
        "jit",
        "text",
        "gradients",
        "indices",
    }


def test_nothing_is_found_without_a_fault():
    """The same checks are silent when nothing is wrong."""
    for checks in ("simplify", "fuse", "plan", "jit", "text"):
        assert not first_problem(Fault("none", checks, None))
    assert not first_problem(Fault("none", "gradients", None))
    assert not first_problem(Fault("none", "indices", None, ("input", "take")))
