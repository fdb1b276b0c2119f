// What a first program does with an unpacked archive. Run by tests/tests/package.rs.
#include <pentimento.h>
#include <stdio.h>

int main(void) {
    pmt_context *context = NULL;
    if (pmt_abi_version() != PMT_ABI_VERSION) return 1;
    if (pmt_context_new(NULL, NULL) != PMT_STATUS_BAD_ARGUMENT) return 2;
    if (pmt_context_new(NULL, &context) != PMT_STATUS_OK || !context) return 3;
    if (pmt_drawing_default(NULL, 0) != PMT_STATUS_BAD_ARGUMENT) return 4;
    pmt_context_free(context);
    pmt_context_free(NULL);
    printf("%s", pmt_version());
    return 0;
}
