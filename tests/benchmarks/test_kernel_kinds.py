"""Kernels of a profile are told apart by their names, and added up for one step."""

import kernel_kinds
import pytest


@pytest.mark.parametrize(
    ('name', 'kind'),
    [
        ('cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob', 'attention'),
        ('sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc', 'convolution'),
        ('nvjet_sm90_tst_128x256_64x4_2x1_v_bz_NNT', 'matrix product'),
        ('gemm_fusion_dot_general_17', 'matrix product'),
        ('cublasLt::splitKreduce_kernel', 'matrix product'),
        ('input_reduce_fusion_3', 'reduction'),
        ('wrapped_transpose', 'transpose'),
        ('input_concatenate_fusion', 'concatenation'),
        ('loop_dynamic_slice_fusion', 'slice'),
        ('loop_convert_fusion_2', 'convert'),
        ('MemsetD32', 'memset'),
        ('MemcpyD2D', 'copy'),
        ('loop_add_multiply_fusion', 'elementwise'),
        ('a kernel of another library', 'other'),
    ],
)
def test_the_name_of_a_kernel_says_its_kind(name, kind):
    assert kernel_kinds.kind(name) == kind


def test_times_and_numbers_are_those_of_one_step_with_the_longest_first():
    found = [('short', 1.0), ('long', 5.0), ('short', 3.0), ('long', 3.0)]
    totals = kernel_kinds.totals(found, 2)
    assert list(totals.items()) == [('long', {'ms': 4.0, 'kernels': 1.0}), ('short', {'ms': 2.0, 'kernels': 1.0})]


def test_a_folder_without_a_profile_is_refused(tmp_path):
    with pytest.raises(SystemExit, match='holds no profile'):
        kernel_kinds.kernels(str(tmp_path), '/device:GPU')
