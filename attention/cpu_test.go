package attention

import _ "sibyl/internal/kernels/cpuenv" // SIBYL_CPU chooses the kernels these tests run on
