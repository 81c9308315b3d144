"""The reader of compiled programs, on a program written by hand."""

from tests.targets.programs import Collective, read_text

PROGRAM = """\
HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[8,8]{1,0})->f32[8,8]{1,0}}

%fused_add (param_0: f32[8,8]) -> f32[8,8] {
  %param_0 = f32[8,8]{1,0} parameter(0)
  ROOT %add.1 = f32[8,8]{1,0} add(%param_0, %param_0)
}

%body (arg: (s32[], f32[8,8])) -> (s32[], f32[8,8]) {
  %arg = (s32[], f32[8,8]{1,0:T(8,128)}) parameter(0)
  %x = f32[8,8]{1,0} get-tuple-element(%arg), index=1
  %f = f32[8,8]{1,0} fusion(%x), kind=kLoop, calls=%fused_add
  %potrf = (f32[8,8]{0,1}, s32[]) custom-call(%f), custom_call_target="cusolver_potrf_ffi"
  ROOT %out = (s32[], f32[8,8]{1,0}) tuple(%f, %f)
}

%condition (arg: (s32[], f32[8,8])) -> pred[] {
  %arg.1 = (s32[], f32[8,8]{1,0}) parameter(0)
  %n = s32[] get-tuple-element(%arg.1), index=0
  ROOT %lt = pred[] fusion(%n), kind=kLoop, calls=%fused_add
}

%small (p: f32[8,8]) -> f32[8,8] {
  ROOT %p = f32[8,8]{1,0} parameter(0)
}

%large (p.1: f32[8,8]) -> f32[8,8] {
  %p.1 = f32[8,8]{1,0} parameter(0)
  %c.1 = f32[8,8]{1,0} copy(%p.1)
  ROOT %c.2 = f32[8,8]{1,0} copy(%c.1)
}

%gathered (p.2: f32[4,8]) -> f32[8,8] {
  %p.2 = f32[4,8]{1,0} parameter(0)
  ROOT %g = f32[8,8]{1,0} all-gather(%p.2), dimensions={0}
}

%recorded (p.3: f32[8,8]) -> f32[8,8] {
  %p.3 = f32[8,8]{1,0} parameter(0)
  %k = f32[8,8]{1,0} custom-call(%p.3), custom_call_target="__gpu$xla.gpu.triton"
  ROOT %c.3 = f32[8,8]{1,0} copy(%k)
}

ENTRY %main.1_spmd (x: f32[8,8]) -> f32[8,8] {
  %x.1 = f32[8,8]{1,0} parameter(0), sharding={mesh['d'=1], [{}, {}]}
  %zero = s32[] constant(0)
  %copied = s32[] copy(%zero)
  %start = (s32[], f32[8,8]{1,0}) tuple(%copied, %x.1)
  %fixed = (s32[], f32[8,8]{1,0}) while(%start), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"7"},"dynamic_variables":[]}
  %open = (s32[], f32[8,8]{1,0}) while(%fixed), condition=%condition, body=%body
  %y = f32[8,8]{1,0} get-tuple-element(%open), index=1
  %which = f32[8,8]{1,0} conditional(%zero, %y, %y), branch_computations={%small, %large}
  %flags = pred[3]{0} broadcast(%zero), dimensions={}
  %sum-start = (f32[8,8]{1,0}, u8[3]{0}) all-reduce-start(%which, %flags), to_apply=%fused_add
  %sum = (f32[8,8]{1,0}, u8[3]{0}) all-reduce-done(%sum-start)
  %half = f32[4,8]{1,0} slice(%y), slice={[0:4], [0:8]}
  %whole = f32[8,8]{1,0} fusion(%half), kind=kCustom, calls=%gathered
  ROOT %last = f32[8,8]{1,0} call(%whole), to_apply=%recorded
}
"""


def test_a_program_written_by_hand():
    program = read_text(PROGRAM)
    # copy; two copies of the branch; broadcast, all-reduce, slice, fusion; kernel and copy.
    assert program.outside == 9
    # Seven turns of the body; one turn of body and condition, of turns that nobody knows.
    assert program.launches == 9 + 7 * 2 + 3
    assert program.loops == [(2, 7), (3, None)]
    assert program.waits == 2  # the loop of unknown turns, and the branch
    assert program.kernels == 1
    assert program.library == {"cusolver_potrf_ffi": 2}
    assert program.library_in_loops == {"cusolver_potrf_ffi": 2}
    assert program.collectives == [
        Collective("all-reduce", ("f32[8,8]", "u8[3]"), 259, 1),
        Collective("all-gather", ("f32[8,8]",), 256, 1),
    ]
