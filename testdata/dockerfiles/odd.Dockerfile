ARG A
ARG B=${A:-x} C="q u o t e d"
FROM scratch AS Odd-Name_1.x
LABEL "with blank"="a b" multi=1\
2 dollar=\$x
ENV E1=a\ b E2='single $x' E3="double ${A:-$B}"
STOPSIGNAL SIGRTMIN+3
USER ${U:-nobody}:${G:-nogroup}
COPY ["a b", "/c d/"]
ENTRYPOINT []
HEALTHCHECK NONE
