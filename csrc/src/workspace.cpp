// The workspace's life, and the library's version. Nothing else allocates but the workspace's buffers.

#include "detail/workspace.h"

#include <new>

const char* fastcam_version(void) noexcept { return FASTCAM_VERSION; }

fastcam_workspace* fastcam_workspace_new(void) noexcept { return new (std::nothrow) fastcam_workspace; }

void fastcam_workspace_free(fastcam_workspace* workspace) noexcept { delete workspace; }
